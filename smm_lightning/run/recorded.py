"""Finished grids under version control: ``docs/results/<grid>.csv``, a row a run.

A grid skips a run that stands there, and a report reads it beside the folders of runs. Text is in
quotes and numbers are not, so that both come back as what they were.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from smm_lightning.errors import problem
from smm_lightning.files import LARGEST_TEXT, at, read_file, write_atomically
from smm_lightning.run.result import epochs_of
from smm_lightning.text import csv_cell, from_csv_cell, parsed_json

Result = dict[str, Any]
_KEY = "run_key"
_ALWAYS = ("dataset", "method", "backbone", "mapping")  # groups whose choice every row names
_GROUPS = (*_ALWAYS, "recipe", "adapter")
# What a report asks of every run.
_REQUIRED = (
    *(_KEY, "run_name", "seed", "epochs", "device", "precision", "card.protocol"),
    *(f"config.{group}.name" for group in _ALWAYS),
    *("environment.versions.torch", "images.train.digest"),
)
_NUMBERS = ("seed", "epochs", "test/acc_last")
# Of what is nested in a result: the parts that a table or its notes need.
_NESTED = {
    "data/images": None,
    "card": None,
    "tried": None,
    "images": {"images", "digest"},
    "environment": {"git_commit", "git_dirty", "torch", "cpus"},
}


class Tables:
    """The tables in a folder.

    Args:
        folder: of them; without one there are no results.
    """

    def __init__(self, folder: Path | str | int | None) -> None:
        self.folder = None if folder in (None, "") else at(str(folder))

    @cached_property
    def rows(self) -> dict[str, Result]:
        """Results by their run keys; each names its table as ``recorded``.

        Raises:
            UserError: If a file there is no such table.
        """
        paths = [] if self.folder is None else sorted(self.folder.glob("*.csv"))
        return {result[_KEY]: result for path in paths for result in read_table(path)}

    def record(self, grid: str, results: Iterable[Mapping[str, Any]]) -> str:
        """Put results into the table of a grid, and say so.

        Raises:
            UserError: If there is no folder, or a file that is no such table.
            OSError: If it cannot be written.
        """
        if self.folder is None:
            raise problem("paths.results", "must name a folder for --record", None)
        path = self.folder / f"{grid}.csv"
        return f"{path}: {record(path, results)} runs"


def read_table(path: Path) -> list[Result]:
    """The rows of one table.

    Raises:
        UserError: If it is none.
    """
    try:
        lines = io.StringIO(read_file(path, LARGEST_TEXT).decode(), newline="")
        rows = list(csv.DictReader(lines, quoting=csv.QUOTE_NONNUMERIC, strict=True))
        return [{**_result(row), "recorded": str(path)} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        what = "cannot be read as a table of runs"
        raise problem(str(path), what, str(error), "Restore it, or delete it.") from None


def _result(row: Mapping[str, Any]) -> Result:
    """Of a row.

    Raises:
        ValueError: If a cell has no column, or a column that every run has is missing.
    """
    if None in row:
        message = "a row has more cells than there are columns"
        raise ValueError(message)
    filled = {name: from_csv_cell(v) for name, v in row.items() if v not in ("", None)}
    if missing := [name for name in _REQUIRED if name not in filled]:
        message = f"a row has no {missing[0]}"
        raise ValueError(message)
    if wrong := [name for name in _NUMBERS if not isinstance(filled.get(name), float)]:
        message = f"{wrong[0]} is no number"
        raise ValueError(message)
    result = _nested(filled)
    return {**result, _KEY: str(result[_KEY])}


def record(path: Path, results: Iterable[Mapping[str, Any]]) -> int:
    """Put results into a table, in the place of rows of the same runs; other rows stay.

    Args:
        path: of the table, made if it is not there.
        results: contents of ``result.json``, or of a table.

    Returns:
        How many rows the table has now.

    Raises:
        UserError: If there is a file that is no such table.
        OSError: If it cannot be written.
    """
    known = read_table(path) if path.is_file() else []
    rows = {result[_KEY]: dict(_flat(result)) for result in (*known, *results)}
    ordered = sorted(rows.values(), key=lambda row: (row["run_name"], row[_KEY]))
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in ordered for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(ordered)
    write_atomically(path, text.getvalue().encode())
    return len(ordered)


def _flat(result: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Scalars, and of what is nested the chosen parts under names with dots."""
    for name, value in result.items():
        if name in _NESTED:
            yield from _leaves(name, value, _NESTED[name])
        elif name == "config":
            names = ((g, value[g]["name"]) for g in _GROUPS if g in value)
            yield from ((f"config.{g}.name", csv_cell(name)) for g, name in names)
        elif name == "history":
            yield "epochs", epochs_of(result)
        elif name == "diagnosis" and value:
            yield name, csv_cell(json.dumps(value))
        elif isinstance(value, str | int | float) and name != "recorded":
            yield name, _written(value)


def _leaves(prefix: str, node: Mapping[str, Any], wanted: set[str] | None) -> Iterator[Any]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _leaves(f"{prefix}.{name}", value, wanted)
        elif (wanted is None or name in wanted) and value is not None:
            yield f"{prefix}.{name}", _written(value)


def _written(value: Any) -> Any:
    """A table does not tell 1, 1.0 and true apart: all are written as 1."""
    whole = isinstance(value, int | float) and float(value).is_integer()
    return int(value) if whole else csv_cell(value)


def _nested(row: Mapping[str, Any]) -> Result:
    """What :func:`_flat` has flattened."""
    result: Result = {}
    for name, value in row.items():
        *path, leaf = name.split(".")
        node = result
        for part in path:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                message = f"the column {name} lies in another one"
                raise ValueError(message)
        if leaf in node:
            message = f"the column {name} holds another one"
            raise ValueError(message)
        node[leaf] = int(value) if isinstance(value, float) and value.is_integer() else value
    return {**result, "diagnosis": parsed_json(result.get("diagnosis", "null"))}
