"""The numbers that the paper prints."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from smm_lightning.report.runs import Run, distinct

# A metric of ours to the one that is printed; the paper does not say whether its epoch is the last
# or the best one.
_PRINTED = {
    "test/acc_last": "test/acc",
    "test/acc_best_val": "test/acc",
    "test/acc_best_test": "test/acc",
    "train/acc_last": "train/acc",
    "method/pixel_accesses": "method/pixel_accesses",
    "params/mask_generator": "params/mask_generator",
}
_GROUPS = ("backbone", "dataset", "method", "mapping")


@dataclass(frozen=True)
class Printed:
    """A number of the paper, in its own unit (percent, millions).

    Attributes:
        mean: over three seeds.
        std: where it is printed.
        names: the paper's, where ours are others: the number is of another network or other images.
    """

    mean: float
    std: float | None
    names: Sequence[str] = ()


@cache
def _rows() -> list[dict[str, str]]:
    with (Path(__file__).parent / "paper.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows_of(table: str) -> list[dict[str, str]]:
    """The lines of ``paper.csv`` about a table."""
    return [row for row in _rows() if row["table"] == table]


def printed_order(run: Run) -> tuple[int, ...]:
    """Sorts runs as the paper prints them: by dataset, backbone, mapping, method; others last."""
    places = []
    for group in ("dataset", "backbone", "mapping", "method"):
        names = distinct(row[group] for row in _rows())
        name = run.value(f"{group}.name")
        places.append(names.index(name) if name in names else len(names))
    return tuple(places)


def setting_fields(table: str) -> list[str]:
    """Dotted fields, other than the names, that tell the rows of this table apart."""
    settings = (row["setting"].split() for row in rows_of(table))
    return distinct(item.partition("=")[0] for words in settings for item in words)


def printed(
    table: str,
    run: Run,
    metric: str,
    names: Mapping[str, str] = MappingProxyType({}),
    *,
    average: bool = False,
) -> Printed | None:
    """The paper's number for a run, or ``None`` where it prints none.

    Args:
        table: such as ``table1``.
        run: whose names and settings are looked up.
        metric: of ours.
        names: of ours to the paper's, for numbers of something else.
        average: the printed average over the datasets instead.
    """
    ours = {group: run.value(f"{group}.name") for group in _GROUPS}
    if average:
        ours["dataset"] = "average"
    theirs = {group: names.get(name, name) for group, name in ours.items()}
    for row in rows_of(table):
        if (
            row["metric"] == _PRINTED.get(metric)
            and all(row[group] in ("", name) for group, name in theirs.items())
            and all(_agrees(item, run) for item in row["setting"].split())
        ):
            others = [name for group, name in theirs.items() if name != ours[group]]
            return Printed(float(row["mean"]), float(row["std"]) if row["std"] else None, others)
    return None


def _agrees(item: str, run: Run) -> bool:
    field, _, wanted = item.partition("=")
    value: Any = run.value(field)
    return str(value) == wanted or (
        isinstance(value, int | float) and float(value) == float(wanted)
    )
