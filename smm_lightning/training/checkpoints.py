"""Which weights are kept: the last, and the best."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from typing_extensions import override

from smm_lightning.errors import UserError
from smm_lightning.files import write_atomically
from smm_lightning.ranges import Count
from smm_lightning.run.card import ProtocolName, chooser
from smm_lightning.run.checkpoint import read_checkpoint


class LastCheckpoint(Checkpoint):
    """``last.ckpt``: the state to go on from, after every epoch and, on request, in between.

    Args:
        folder: of the run.
        every_n_steps: also after every n-th step of all; ``None``: after epochs only.
    """

    def __init__(self, folder: str | Path, every_n_steps: Count | None = None) -> None:
        self.path = Path(folder) / "last.ckpt"
        self.every_n_steps = every_n_steps

    def save(self, trainer: L.Trainer) -> None:
        """Replace the file by the state of now."""
        trainer.save_checkpoint(self.path)

    @override
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Save where it is due, but not after an epoch's last step, whose test is still to come."""
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due and not trainer.is_last_batch:
            self.save(trainer)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save after every epoch."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.save(trainer)


def test_best(
    trainer: L.Trainer, module: Any, data: L.LightningDataModule, folder: Path, epoch: int
) -> float | None:
    """Accuracy on the test images of the weights in ``best.ckpt``, logged as ``best/acc``.

    The module is left with these weights.

    Args:
        trainer: of the run, after its training.
        module: a :class:`ReprogrammingModule`.
        data: of the run.
        folder: likewise.
        epoch: that is the best one.

    Returns:
        ``None`` where the file holds no such weights, which is said in a line.
    """
    path = folder / "best.ckpt"
    what, kept = f"the weights of epoch {epoch + 1}, the best on val, were not tested", {}
    try:
        kept = read_checkpoint(path)
    except UserError as error:
        print(f"{what}: {error.problems[0]}")
        return None
    if kept.get("epoch") != epoch:
        print(f"{what}: they are not in {path}")
        return None
    # Not by Lightning's ckpt_path, which gives callbacks, too, the state that they had then.
    module.load_state_dict(kept["state_dict"])
    module.tested = "best"
    try:
        tested = trainer.test(module, datamodule=data, verbose=False)
    finally:
        module.tested = "test"
    return float(tested[0]["best/acc"])


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: the epoch of the highest accuracy on ``val``, where the dataset has it.

    The published code keeps the best *test* epoch, which is optimistic: so does the protocol
    ``published`` without a ``val``. Under ``strict`` nothing is best then, and nothing is kept.

    Args:
        folder: of the run.
        protocol: which says whether the test may choose.
    """

    def __init__(self, folder: str | Path, protocol: ProtocolName = "strict") -> None:
        self.protocol = protocol
        super().__init__(
            folder,
            filename="best",
            mode="max",
            save_on_train_epoch_end=False,  # but after the test, which decides
            enable_version_counter=False,  # a run that goes on replaces its file
        )

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find out which splits there are."""
        splits = trainer.datamodule.evaluation_splits  # type: ignore[attr-defined]
        split = chooser(self.protocol, splits)
        self.monitor = None if split is None else f"{split}/acc"
        self.save_top_k = int(split is not None)
        super().setup(trainer, pl_module, stage)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the best epoch so far along into another or a moved folder, which Lightning drops.

        Where its file is gone, the best is sought among the epochs to come.
        """
        assert self.dirpath is not None
        if self.dirpath == state_dict["dirpath"]:
            super().load_state_dict(state_dict)
            return
        if not state_dict["best_model_path"]:  # nothing was tested before
            return
        old, new = Path(state_dict["best_model_path"]), Path(self.dirpath) / "best.ckpt"
        if old.is_file() and not new.is_file():  # a copied folder has its own, which may be older
            write_atomically(new, old.read_bytes())
        if new.is_file():
            moved = {
                **dict.fromkeys(("best_model_path", "kth_best_model_path"), str(new)),
                "best_k_models": {str(new): state_dict["best_model_score"]},
                "dirpath": self.dirpath,
            }
            super().load_state_dict({**state_dict, **moved})
