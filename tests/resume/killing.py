"""Runs in processes that are killed, forked from a server that has the libraries loaded."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import smm_lightning.training.assembly  # noqa: F401 - loaded once, in the server
from smm_lightning import train as entry
from smm_lightning.dataset.sampler import DeterministicBatchSampler
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.run.config import composed
from tests.programs import WARM, start_as_usual

BASE = (
    *("backbone=tiny", "trainer=cpu", "dataset.train_images=120", "dataset.test_images=60"),
    *("dataset.batch_size=20", "epochs=5", "dataset.augmentation=paper", "threads=1"),
    "recipe=paper",  # whose mapping moves in every epoch
)


def _work(overrides, derived, log):
    start_as_usual()
    sys.stdout = sys.stderr = Path(log).open("a")  # noqa: SIM115 - until the process ends
    if not derived:  # as Lightning does it: from the state of PyTorch's generator
        DeterministicBatchSampler._order = lambda self, epoch: torch.randperm(self.length)
    entry.train(composed(overrides))


def start(overrides, log, *, derived=True):
    process = WARM.Process(target=_work, args=(overrides, derived, str(log)))
    process.start()
    return process


def run_through(overrides, log, *, derived=True):
    """Uninterrupted; returns the seconds that it took."""
    begin = time.perf_counter()
    process = start(overrides, log, derived=derived)
    process.join()
    assert process.exitcode == 0, log.read_text()
    return time.perf_counter() - begin


def run_killed(overrides, log, kills, seconds, seed, *, derived=True, number=signal.SIGKILL):
    """Killed at random instants, started again each time; returns how many kills met the run.

    At least one does: a run that ends before it, on a machine that has become faster than it was in
    the ``seconds`` of a whole run, begins anew and is measured again.
    """
    chance, met, anew = random.Random(seed), 0, []
    while met < kills:
        begin = time.perf_counter()
        process = start([*overrides, *anew], log, derived=derived)
        process.join(chance.uniform(0.1, 1.0) * seconds)
        if process.exitcode is not None:
            assert process.exitcode == 0, log.read_text()
            if met:
                return met
            seconds, anew = time.perf_counter() - begin, ["force=true"]
            continue
        os.kill(process.pid, number)
        process.join()
        met += process.exitcode != 0
        anew = []
    run_through(overrides, log, derived=derived)
    return met


def outcome(root, part=""):
    """Everything that must be equal: checkpoints, and the result without times and places.

    Of the one run below ``root`` whose name has ``part`` between its hyphens.
    """
    found = [path.parent for path in Path(root).glob("*/result.json")]
    (folder,) = (path for path in found if not part or part in path.name.split("-"))
    last, best = (read_checkpoint(folder / f"{name}.ckpt") for name in ("last", "best"))
    result = json.loads((folder / "result.json").read_text())
    del result["environment"]
    for where in ("paths", "callbacks", "logger", "force"):
        del result["config"][where]
    return {
        "weights": last["state_dict"],
        "best weights": best["state_dict"],
        "optimizer": last["optimizer_states"],
        "schedule": last["lr_schedulers"],
        "result": _without_times(result),
    }


def _without_times(value):
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if not k.startswith("time/")}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def differences(one, other, name=""):
    """Where two nested outcomes differ, bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = one.keys() | other.keys()
        return [d for k in keys for d in differences(one.get(k), other.get(k), f"{name}/{k}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, f"{name}/{i}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if torch.equal(one, other) else [name]
    return [] if one == other else [f"{name}: {one!r} {other!r}"]
