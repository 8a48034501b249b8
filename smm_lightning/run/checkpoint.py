"""Reading checkpoints, without running what is in them."""

import logging
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smm_lightning.errors import Problems, UserError, problem
from smm_lightning.files import at
from smm_lightning.run.folder import other_run

SCHEMA = 9  # of the checkpoint; raise it when its content changes
_GROUPS = ("identity", "state_dict", "parts")  # which every one has
_OF_TRAINING = {
    "epoch": int,
    "global_step": int,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "training": dict,
    "mapping": dict,
    "sums": dict,
}


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
            if any(member.compress_type for member in archive.infolist()):  # ours are not
                raise zipfile.BadZipFile("compressed")
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
    checkpoint = checkpoint if isinstance(checkpoint, dict) else {}
    if "identity" not in checkpoint:
        raise problem(f"ckpt_path: {path}", "is no checkpoint of this program")
    for name in _GROUPS:
        node, what = checkpoint.get(name), "is damaged: it must be a group of fields"
        whole = isinstance(node, dict) and all(isinstance(key, str) for key in node)
        if not whole or not (node or name == "parts"):  # which a plain Lightning training lacks
            raise problem(f"ckpt_path: {path}: {name}", what)
    if not all(_is_plain(value) for value in checkpoint["state_dict"].values()):
        raise problem(f"ckpt_path: {path}: state_dict", "is damaged: it must hold plain tensors")
    return checkpoint


def _is_plain(value: Any) -> bool:
    """A tensor with numbers in it, one beside the other."""
    import torch

    dense = isinstance(value, torch.Tensor) and value.layout == torch.strided
    return dense and not (value.is_meta or value.is_quantized or value.is_nested)


def require_schema(checkpoint: Mapping[str, Any], where: str, hint: str) -> None:
    """Refuse what another version wrote, which says other things.

    Args:
        checkpoint: that was read.
        where: the file, for the message.
        hint: what to do.

    Raises:
        UserError: If it is of another version.
    """
    if (then := checkpoint["identity"].get("schema")) != SCHEMA:
        raise problem(where, "is a checkpoint of another version", then, hint)


def require_state_of_training(checkpoint: Mapping[str, Any], where: str) -> None:
    """Refuse a checkpoint that predicts, but that no training can go on from.

    Args:
        checkpoint: that was read.
        where: the file, for the message.

    Raises:
        UserError: A line for everything that is missing.
    """
    problems = Problems()
    for name, kind in _OF_TRAINING.items():
        there = isinstance(checkpoint.get(name), kind) and checkpoint[name] != []
        what = f"has no {name}, so no training can go on from it"
        problems.require(there, where, what, hint="Use last.ckpt of a run.")
    problems.raise_if_any()
    progress: Any = checkpoint["loops"]
    for name in ("fit_loop", "epoch_progress", "current"):
        progress = progress.get(name) if isinstance(progress, dict) else None
    counted = all(isinstance(leaf, int) and leaf >= 0 for leaf in _leaves(checkpoint["loops"]))
    problems.require(counted, where, "its loops hold more than counts")
    whole = counted and _agrees(progress, checkpoint) and checkpoint["global_step"] >= 0
    problems.require(whole, where, "its loops and its history do not say the same epochs")
    problems.raise_if_any()


def _agrees(progress: Any, checkpoint: Mapping[str, Any]) -> bool:
    """The epochs that are behind it, and a row of the history for each."""
    names = ("ready", "started", "processed", "completed")
    if not isinstance(progress, dict) or not set(names) <= progress.keys():
        return False
    ready, started, processed, completed = (progress[name] for name in names)
    history = (checkpoint["callbacks"].get("EpochRecorder") or {}).get("history")
    rows = history if isinstance(history, list) else []  # looked at when it is taken
    epochs = [row.get("epoch") if isinstance(row, dict) else None for row in rows]
    return (
        ready - 1 <= processed <= started <= ready
        and processed - 1 <= completed <= processed
        and (history is None or epochs == list(range(len(epochs))))
        and (history is None or processed - 1 <= len(epochs) <= processed)
    )


def _leaves(node: Any) -> Iterator[Any]:
    """What is no group of fields; an empty one is none, but for states of other loops."""
    if isinstance(node, dict) and node:
        for name, inner in node.items():
            yield from () if inner == {} and str(name).endswith("state_dict") else _leaves(inner)
    else:
        yield node


def starting_point(
    left: Path, chosen: str | None, epochs: int, run_key: str, *, anew: bool
) -> Path | None:
    """The checkpoint to go on from.

    Args:
        left: what an interrupted run of the same configuration left.
        chosen: ``ckpt_path`` of the configuration, for a run that left nothing yet.
        epochs: of the whole training.
        run_key: of this run, which ``left`` must carry.
        anew: ignore what the run itself left.

    Raises:
        UserError: If ``chosen`` leaves nothing to train, or ``left`` is of another configuration.
    """
    other = None if chosen is None else at(chosen)
    if other is not None and (anew or not left.is_file()):
        _require_epochs_left(other, epochs)
    if anew or not left.is_file():
        return other
    try:
        checkpoint = read_checkpoint(left)
        require_state_of_training(checkpoint, str(left))
    except UserError as error:  # starting again costs time, but the result is the same
        logging.getLogger(__name__).warning("%s The run starts again.", error)
        return other
    if checkpoint.get("run_key", run_key) != run_key:  # older versions are refused by their schema
        raise other_run(left.parent)
    print(f"going on from {left}", flush=True)
    return left


def _require_epochs_left(path: Path, epochs: int) -> None:
    checkpoint = read_checkpoint(path)
    require_state_of_training(checkpoint, f"ckpt_path: {path}")
    done = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    if done >= epochs:
        what = f"the checkpoint has {done} epochs behind it, which leaves none of {epochs}"
        raise problem("ckpt_path", what, str(path), "Use more epochs, or another checkpoint.")
