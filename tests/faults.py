"""Faults that tests put into runs, by the node of the logger: it is no part of a run's key."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from smm_lightning.train import train
from smm_lightning.training import LastCheckpoint
from smm_lightning.training.module import ReprogrammingModule


def cut_after(cfg, epoch, monkeypatch):
    """Train, and die right after the checkpoint of an epoch, counted from 0."""
    save = LastCheckpoint.on_train_epoch_end

    def save_then_die(self, trainer, module):
        save(self, trainer, module)
        if trainer.current_epoch == epoch:
            raise KeyError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(LastCheckpoint, "on_train_epoch_end", save_then_die)
        with pytest.raises(KeyError, match=r"killed"):
            train(cfg)


class Faults(Logger):
    """Logs nothing, and does harm in one training step of the runs with the given seeds.

    Args:
        kinds: by seed: ``exception``, ``sigkill``, ``sigterm``, ``sleep``, or ``full disk``, which
            fills the file system of the run's folder.
        epoch: in which.
        step: before which.
    """

    name = version = None

    def __init__(self, kinds, epoch=1, step=2):
        super().__init__()
        kinds = dict(kinds)

        def harm(module, batch, batch_idx):
            kind = kinds.get(module.provenance.identity["seed"])
            if kind is not None and (module.current_epoch, batch_idx) == (epoch, step):
                do(kind, Path(module.trainer.checkpoint_callbacks[0].path).parent.parent)

        # A run is a process of its own, so this ends with it.
        ReprogrammingModule.on_train_batch_start = harm

    def log_hyperparams(self, *_, **__):
        pass

    def log_metrics(self, *_, **__):
        pass


class AskedToEnd(Callback):
    """Sends its own process SIGTERM, once, at one of Lightning's hooks."""

    def __init__(self, hook):
        def ask(*_, **__):
            setattr(self, hook, lambda *_, **__: None)
            os.kill(os.getpid(), signal.SIGTERM)

        setattr(self, hook, ask)


def overrides(kinds, **at):
    """Of a command line: the faults by seed."""
    by_seed = ",".join(f"{seed}:{kind}" for seed, kind in kinds.items())
    where = [f"+logger.faults.{name}={number}" for name, number in at.items()]
    kinds = f"+logger.faults.kinds={{{by_seed}}}"
    return ["+logger.faults._target_=tests.faults.Faults", kinds, *where]


def do(kind, folder):
    if kind == "exception":
        message = "made to fail"
        raise ArithmeticError(message)
    if kind == "sleep":
        time.sleep(3600)
    if kind == "full disk":
        fill(folder / "filler")
        return
    os.kill(os.getpid(), getattr(signal, kind.upper()))


def fill(path):
    """Write until nothing more fits."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)
