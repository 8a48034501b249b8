"""``result.json``: everything that a report needs to know of a finished run.

Reading and writing only: no torch, no Lightning, no Hydra is imported.
"""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import pydantic
from annotated_types import Ge, Le, MinLen
from typing_extensions import TypedDict

from smm_lightning.errors import UserError, problem
from smm_lightning.files import read_json, write_atomically
from smm_lightning.ranges import Seed
from smm_lightning.run.card import CHOOSERS, Card
from smm_lightning.run.declared import Name

FILE = "result.json"
# Numbers that a search over configurations can maximise.
_Accuracy = Literal[
    "test/acc_last", "test/acc_best_test", "test/acc_best_val", "val/acc", "train/acc_last"
]
_Loss = Literal["test/loss_last", "train/loss_last"]
_Cost = Literal["time/epoch_s", "time/step_s", "time/training_s", "params/trainable"]
Objective = _Accuracy | _Loss | _Cost
# Numbers of a run are named so; those without a value are null.
_NUMBERS = ("train/", "test/", "val/", "time/", "params/", "method/", "best/epoch", "temperature")
_CHOICES = ("dataset", "method", "backbone", "mapping", "adapter", "recipe")


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    """Write ``result`` in one step, last of all files of a run; NaN and infinity become null.

    Raises:
        OSError: If the folder cannot be written.
    """
    path = folder / FILE
    text = json.dumps(_without_nan(result), indent=2, allow_nan=False)
    write_atomically(path, f"{text}\n".encode())
    return path


def _without_nan(node: Any) -> Any:
    """JSON has neither; a test loss in 16 bits may be one."""
    if isinstance(node, Mapping):
        return {name: _without_nan(inner) for name, inner in node.items()}
    if isinstance(node, list | tuple):
        return [_without_nan(inner) for inner in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


_Text = pydantic.InstanceOf[str]  # names of folders may be no Unicode


class _Named(TypedDict):
    name: Name


class _Config(TypedDict):
    dataset: _Named
    method: _Named
    backbone: _Named
    mapping: _Named


class _Source(TypedDict):
    index: int
    name: str
    weight: float


class _Target(TypedDict):
    target: _Text
    sources: list[_Source]


class _Images(TypedDict):
    images: int
    digest: str


class _Versions(TypedDict):
    torch: str


class _Environment(TypedDict):
    versions: _Versions
    git_commit: NotRequired[str | None]
    git_dirty: NotRequired[bool]


# What reports and figures ask of a result; it may say more.
_Result = TypedDict(
    "_Result",
    {
        "run_key": str,
        "seed": Seed,
        "test/acc_last": Annotated[float, Ge(0), Le(1)],
        "test/acc_best_test": NotRequired[Annotated[float, Ge(0), Le(1)] | None],
        "test/acc_best_val": NotRequired[Annotated[float, Ge(0), Le(1)] | None],
        "best/selected_on": NotRequired[Literal["test", "val"] | None],
        "card": dict[_Text, str | int | float | None],
        "device": str,
        "precision": str,
        "history": Annotated[list[dict[str, float | None]], MinLen(1)],
        "environment": _Environment,
        "config": _Config,
        "identity": NotRequired[dict[str, Any]],
        "mapping": NotRequired[list[_Target]],
        "images": NotRequired[dict[str, _Images]],
        "data/images": NotRequired[dict[str, int]],
        "class_names": NotRequired[list[_Text]],
    },
)
_RESULT = pydantic.TypeAdapter(_Result)


def load_result(folder: Path) -> dict[str, Any]:
    """The result of a finished run, whoever wrote it.

    Raises:
        UserError: If there is none, or it does not say what a result says.
    """
    path = folder / FILE
    try:
        result: dict[str, Any] = read_json(path)
        _RESULT.validate_python(result, strict=True)
    except pydantic.ValidationError as error:
        if isinstance(result, dict) and "test/acc_last" in result and "card" not in result:
            what = "was written by an older version, without a protocol card"
            raise problem(str(path), what, hint="force=true runs it anew.") from None
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise problem(str(path), f"is no result ({place}: {first['msg']})") from None
    except (OSError, ValueError) as error:
        raise problem(str(path), f"cannot be read as a result ({error})") from error
    if result["card"].get("protocol") not in CHOOSERS:
        raise problem(str(path), "is no result (card: names no protocol)")
    for name, value in result.items():
        if name.startswith(_NUMBERS) and not isinstance(value, int | float | None):
            raise problem(str(path), f"is no result ({name}: is no number)")
    if not all(isinstance(row.get("epoch"), int | float) for row in result["history"]):
        raise problem(str(path), "is no result (history: a row has no epoch)")
    return result


def read_result(folder: Path, run_key: str | None = None) -> dict[str, Any] | None:
    """The result of a finished run, or ``None`` if there is none that can be read.

    Args:
        folder: of the run.
        run_key: if given, a result of another configuration counts as none.
    """
    try:
        result = load_result(folder)
    except UserError:
        return None
    return result if run_key in (None, result["run_key"]) else None


def broken_result(folder: Path) -> str:
    """Why a file is there and is no result, in a line; empty if nothing is wrong."""
    try:
        if (folder / FILE).exists():
            load_result(folder)
    except UserError as error:
        return error.problems[0]
    return ""


@dataclass(frozen=True)
class Best:
    """The epoch of the highest accuracy.

    Attributes:
        epoch: from 0; the last one where there was nothing to choose from.
        selected_on: by accuracy on which split; ``None``: it is the last epoch.
    """

    epoch: int
    selected_on: str | None


def best_of(history: Sequence[Mapping[str, float]], split: str | None) -> Best:
    """The first epoch of the highest accuracy on a split.

    Args:
        history: rows of :class:`EpochRecorder`.
        split: that may choose, if one may.
    """
    measured = [row for row in history if f"{split}/acc" in row]
    if len(measured) <= 1:
        return Best(int(history[-1]["epoch"]), None)
    return Best(int(max(measured, key=lambda row: row[f"{split}/acc"])["epoch"]), split)


def summarize(
    history: Sequence[Mapping[str, float]], last: Mapping[str, float], best: Best
) -> dict[str, Any]:
    """Accuracies under plain names, from the epochs' rows and the final test.

    ``test/acc_best_test`` is the best *test* epoch, as in the published code: optimistic, and there
    only where the test was watched. ``test/acc_best_val`` is that of the best epoch on ``val``;
    where that epoch was not tested, the caller tests its weights.

    Args:
        history: rows of :class:`EpochRecorder`.
        last: metrics of the final test of the last weights.
        best: the chosen epoch.
    """
    final = history[-1]
    watched = [row["test/acc"] for row in history if "test/acc" in row]
    tested = {row["epoch"]: row["test/acc"] for row in history if "test/acc" in row}
    validated = [row["val/acc"] for row in history if "val/acc" in row]
    of_val = {final["epoch"]: last["test/acc"], **tested}.get(best.epoch)
    seconds = [row["time/epoch_s"] for row in history]
    steps = [row["time/step_s"] for row in history]
    return {
        "train/acc_last": final["train/acc"],
        "train/loss_last": final["train/loss"],
        "test/acc_last": last["test/acc"],
        "test/loss_last": last["test/loss"],
        "test/acc_best_test": max(watched, default=None),
        "test/acc_best_val": of_val if best.selected_on == "val" else None,
        "best/epoch": best.epoch,
        "best/selected_on": best.selected_on,
        "val/acc": validated[-1] if validated else None,
        "time/epoch_s": sum(seconds) / len(seconds),
        "time/step_s": statistics.median(steps),
        "time/training_s": sum(seconds),
    }


def epochs_of(result: Mapping[str, Any]) -> int:
    """How many epochs were trained, which may be fewer than were asked for."""
    history = result.get("history")
    return int(history[-1]["epoch"]) + 1 if history else int(result["epochs"])


def prompt_card(result: Mapping[str, Any]) -> Card:
    """How a prompt was trained and how good it is, for people who get it alone.

    Args:
        result: of its run.
    """
    config = result["config"]
    choices = {name: (config.get(name) or {}).get("name") for name in _CHOICES}
    card = {
        **choices,
        "test accuracy": result["test/acc_last"],
        "weights": "of the last epoch",
        "epochs": epochs_of(result),
        "seed": result["seed"],
        **result["card"],
    }
    return {name: value for name, value in card.items() if value is not None}


def score(objective: Objective, result: dict[str, Any]) -> float:
    """What a search over configurations maximises.

    Raises:
        UserError: If the result has no such number, such as ``val/acc`` without a ``val`` split.
    """
    value = result.get(objective)
    if not isinstance(value, int | float):
        hint = "For val/acc, set dataset.val_fraction or take a dataset that has a val split."
        raise problem("objective", "the result has no such number", objective, hint)
    return float(value)
