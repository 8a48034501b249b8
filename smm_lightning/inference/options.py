"""Options that commands have in common."""

import argparse

import torch

from smm_lightning.device import best_device
from smm_lightning.errors import problem


def device_of(name: str) -> torch.device:
    """``auto`` is a GPU where there is one.

    Raises:
        UserError: If PyTorch does not know it or it is not there.
    """
    if name == "auto":
        return torch.device(best_device())
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise problem("device", f"cannot be used: {reason}", name) from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of every command that builds a classifier from a file."""
    parser.add_argument("--weights", help="a local file of the frozen weights")
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Of every command that builds parts which a file names."""
    trust = "a module outside this package whose classes the file may name; its code runs"
    parser.add_argument("--trust", metavar="MODULE", action="append", default=[], help=trust)
