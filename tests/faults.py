"""Faults that tests put into runs: a callback, which is no part of a run's key."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class Fault(Callback):
    """Does harm in one training step of the runs with the given seeds.

    Args:
        kinds: by seed: ``exception``, ``sigkill``, ``sigterm``, ``sleep``, or ``full disk``, which
            fills the file system of the run's folder.
        epoch: in which.
        step: before which.
    """

    def __init__(self, kinds, epoch=1, step=2):
        self.kinds = {int(seed): kind for seed, kind in kinds.items()}
        self.at = (epoch, step)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        kind = self.kinds.get(module.identity["seed"])
        if (trainer.current_epoch, batch_idx) != self.at or kind is None:
            return
        if kind == "exception":
            message = "made to fail"
            raise ArithmeticError(message)
        if kind == "sleep":
            time.sleep(3600)
        if kind == "full disk":
            fill(Path(trainer.checkpoint_callbacks[0].path).parent.parent / "filler")
            return
        os.kill(os.getpid(), getattr(signal, kind.upper()))


def fill(path):
    """Write until nothing more fits."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)
