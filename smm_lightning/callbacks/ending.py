"""A run that is asked to end saves its state first."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from smm_lightning.callbacks.checkpoints import LastCheckpoint
from smm_lightning.signals import RunSignals


class SaveBeforeEnd(Callback):
    """Saves ``last.ckpt`` after the training step in which a signal came, then leaves.

    Where a whole epoch or a test is due next, or where several ranks would have to agree, the
    checkpoint of the last epoch stands: a run that goes on from it ends equal all the same.

    Args:
        signals: that end the run.
    """

    def __init__(self, signals: RunSignals) -> None:
        self.signals = signals

    def on_train_batch_start(self, *_: Any) -> None:
        """From here on a signal waits."""
        self.signals.in_step = True

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Until here."""
        self.signals.in_step = False
        if self.signals.received is None:
            return
        if not trainer.is_last_batch and trainer.world_size == 1:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, LastCheckpoint):
                    callback.save(trainer)
        self.signals.leave()
