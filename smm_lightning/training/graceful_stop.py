"""A run that is asked to end saves its state first."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from smm_lightning.run.signals import RunSignals
from smm_lightning.training.checkpoints import LastCheckpoint


class GracefulStop(Callback):
    """Saves ``last.ckpt`` after the training step in which a signal came, then leaves.

    While an epoch is counted or tested, after its last step, or where several ranks would have to
    agree, the checkpoint of the epoch before stands: a run that goes on from it ends equal as well.

    Args:
        signals: that end the run.
    """

    def __init__(self, signals: RunSignals) -> None:
        self.signals = signals

    @override
    def on_train_batch_start(self, *_: Any) -> None:
        """Let a signal wait for the end of the step."""
        self.signals.in_step = True

    @override
    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Save where a signal came, and let the next one end the run at once."""
        if self.signals.received is None or trainer.is_last_batch or trainer.world_size > 1:
            self._let_go()
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, LastCheckpoint):
                callback.save(trainer)
        self._let_go()

    @override
    def on_train_epoch_end(self, *_: Any) -> None:
        """Let a signal wait again while the epoch is saved."""
        self.signals.in_step = True

    @override
    def on_train_epoch_start(self, *_: Any) -> None:
        """Let a signal end the run at once while the mapping is counted."""
        self._let_go()

    @override
    def on_train_end(self, *_: Any) -> None:
        """Let a signal end the run at once after the last epoch."""
        self._let_go()

    def _let_go(self) -> None:
        self.signals.in_step = False
        if self.signals.received is not None:
            self.signals.leave()
