"""Finished grids under version control: ``docs/results/<grid>.csv``, a row a run.

A grid skips a run that stands there, and a report reads it beside the folders of runs. Text is in
quotes and numbers are not, so that both come back as what they were.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from smm_lightning.errors import problem
from smm_lightning.files import write_atomically
from smm_lightning.run.result import epochs_of

Result = dict[str, Any]
_KEY = "run_key"
_GROUPS = ("dataset", "method", "backbone", "mapping", "recipe")  # whose choice a row names
# Of what is nested in a result: the parts that a table or its notes need.
_NESTED = {
    "data/images": None,
    "images": {"images", "digest"},
    "environment": {"git_commit", "git_dirty", "torch", "cpus"},
}


def recorded(folder: Path | str | int | None) -> dict[str, Result]:
    """Results by their run keys, of all tables in a folder; each names its table as ``recorded``.

    Args:
        folder: of the tables; without one, or without tables in it, there are no results.

    Raises:
        UserError: If a file there is no such table.
    """
    tables = sorted(Path(str(folder)).glob("*.csv")) if folder not in (None, "") else []
    return {result[_KEY]: result for path in tables for result in read_table(path)}


def read_table(path: Path) -> list[Result]:
    """The rows of one table.

    Raises:
        UserError: If it is none.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, quoting=csv.QUOTE_NONNUMERIC))
        results = [_nested({k: v for k, v in row.items() if v not in ("", None)}) for row in rows]
        return [{**result, "recorded": str(path), _KEY: str(result[_KEY])} for result in results]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        what = "cannot be read as a table of runs"
        raise problem(str(path), what, str(error), "Restore it, or delete it.") from None


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
            yield from ((f"config.{g}.name", value[g]["name"]) for g in _GROUPS if g in value)
        elif name == "history":
            yield "epochs", epochs_of(result)
        elif name == "diagnosis" and value:
            yield name, json.dumps(value)
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
    return int(value) if whole else value


def _nested(row: Mapping[str, Any]) -> Result:
    """What :func:`_flat` has flattened."""
    result: Result = {}
    for name, value in row.items():
        *path, leaf = name.split(".")
        node = result
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = int(value) if isinstance(value, float) and value.is_integer() else value
    return {**result, "diagnosis": json.loads(result.get("diagnosis", "null"))}
