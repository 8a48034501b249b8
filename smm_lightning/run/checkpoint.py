"""Reading checkpoints, without running what is in them."""

import logging
import zipfile
from pathlib import Path
from typing import Any

from smm_lightning.errors import UserError, problem


def read_checkpoint(path: Path, map_location: Any | None = "cpu") -> dict[str, Any]:
    """Read a checkpoint of ours. Only tensors and plain values are accepted; no code runs.

    Args:
        path: of the file.
        map_location: as for ``torch.load``.

    Raises:
        UserError: If the file is missing, damaged, or not a checkpoint of this program.
    """
    import torch

    if not path.is_file():
        raise problem(
            "ckpt_path", "no such file", str(path), "Runs leave last.ckpt in their folder."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not notice a flipped byte
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch, pickle and zipfile each have their own
        raise problem(
            f"ckpt_path: {path}",
            f"is damaged or no checkpoint of this program ({type(error).__name__})",
            hint="Use another checkpoint, such as best.ckpt of the same run.",
        ) from error
    if not isinstance(checkpoint, dict) or "identity" not in checkpoint:
        raise problem(f"ckpt_path: {path}", "is no checkpoint of this program")
    return checkpoint


def starting_point(left: Path, chosen: str | None, epochs: int, *, anew: bool) -> Path | str | None:
    """The checkpoint to go on from.

    Args:
        left: what an interrupted run of the same configuration left.
        chosen: ``ckpt_path`` of the configuration, for a run that left nothing yet.
        epochs: of the whole training.
        anew: ignore what the run itself left.

    Raises:
        UserError: If ``chosen`` leaves nothing to train.
    """
    if chosen is not None and (anew or not left.is_file()):
        _require_epochs_left(Path(chosen), epochs)
    if anew or not left.is_file():
        return chosen
    try:
        read_checkpoint(left)
    except UserError as error:  # starting again costs time, but the result is the same
        logging.getLogger(__name__).warning("%s The run starts again.", error)
        return chosen
    print(f"going on from {left}", flush=True)
    return left


def _require_epochs_left(path: Path, epochs: int) -> None:
    try:
        progress = read_checkpoint(path)["loops"]["fit_loop"]["epoch_progress"]
        done = progress["current"]["processed"]
    except (KeyError, TypeError) as error:
        what = "holds weights alone, which no training can go on from"
        raise problem("ckpt_path", what, str(path), "Use last.ckpt of a run.") from error
    if done >= epochs:
        what = f"the checkpoint has {done} epochs behind it, which leaves none of {epochs}"
        raise problem("ckpt_path", what, str(path), "Use more epochs, or another checkpoint.")
