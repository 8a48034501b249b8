"""A training at once, and the same in two parts."""

from pathlib import Path

import torch

from smm_lightning.classifier import learned
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.train import train


def state_of(cfg):
    """Of the module, in the last checkpoint of a run."""
    return read_checkpoint(Path(cfg.paths.run) / "last.ckpt")["state_dict"]


def learned_in(cfg):
    """What the last checkpoint of a run holds of the classifier."""
    return learned(state_of(cfg))


def train_at_once_and_in_two(composed, *words):
    """Three epochs; and one, from which another run goes on: the same bits.

    Returns the configuration and the result of the first, and the configuration of the one epoch.
    """
    cfg = composed(*words, "epochs=3")
    result = train(cfg)
    assert result["history"][-1]["train/loss"] < result["history"][0]["train/loss"]
    begun = composed(*words, "epochs=1")
    train(begun)
    rest = composed(*words, "epochs=3", f"ckpt_path={begun.paths.run}/last.ckpt")
    rest.paths.run = f"{cfg.paths.run}-rest"
    rest.callbacks.last.folder = rest.callbacks.best.folder = rest.paths.run
    assert train(rest)["test/loss_last"] == result["test/loss_last"]
    one, other = state_of(cfg), state_of(rest)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    return cfg, result, begun
