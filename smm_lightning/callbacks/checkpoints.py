"""Which weights are kept: the last, and the best."""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``: the state after every epoch, to continue from.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(
            folder, filename="last", save_on_train_epoch_end=True, enable_version_counter=False
        )


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: the epoch of highest accuracy on ``val`` where the dataset has it, else test.

    The published code keeps the best *test* epoch, which is optimistic; results name both.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(
            folder,
            filename="best",
            mode="max",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find out which splits there are."""
        splits = trainer.datamodule.evaluation_splits  # type: ignore[attr-defined]
        self.monitor = "val/acc" if "val" in splits else "test/acc"
        super().setup(trainer, pl_module, stage)
