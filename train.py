"""Launcher: ``python train.py`` is ``smm train`` with the code of this checkout."""

from smm_lightning.train import main

if __name__ == "__main__":
    main()
