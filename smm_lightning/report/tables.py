"""From runs to tables: mean and standard deviation over seeds, never over unlike runs."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from smm_lightning.errors import did_you_mean, problem
from smm_lightning.report.paper import Printed, printed
from smm_lightning.report.runs import NAMES, Run, distinct

Key = tuple[str, ...]


@dataclass(frozen=True)
class Metric:
    """How a number of ``result.json`` is shown.

    Attributes:
        name: there.
        title: for people.
        unit: behind the title.
        scale: from the stored number to the shown one.
        digits: after the point.
        highest: whether more is better; ``None``: neither is marked.
    """

    name: str
    title: str
    unit: str = ""
    scale: float = 1
    digits: int = 3
    highest: bool | None = None


METRICS = {
    metric.name: metric
    for metric in (
        Metric("test/acc_last", "Test accuracy, last epoch", "%", 100, 1, highest=True),
        Metric("test/acc_best", "Test accuracy, best epoch", "%", 100, 1, highest=True),
        Metric("val/acc", "Validation accuracy, last epoch", "%", 100, 1, highest=True),
        Metric("train/acc_last", "Training accuracy, last epoch", "%", 100, 1, highest=True),
        Metric("method/pixel_accesses", "Pixel accesses an image", "million", 1e-6),
        Metric("time/step_s", "Median time of a training step", "s", 1, 4, highest=False),
    )
}


@dataclass(frozen=True)
class Layout:
    """How a table is laid out: the node ``report`` of an experiment.

    Attributes:
        rows: dotted fields whose values make a row.
        columns: likewise a column.
        metrics: a table for each.
        paper: the paper's table with the same cells, such as ``table1``.
    """

    rows: tuple[str, ...] = ("dataset.name",)
    columns: tuple[str, ...] = ("method.name",)
    metrics: tuple[str, ...] = ("test/acc_last", "test/acc_best")
    paper: str | None = None

    @classmethod
    def of(cls, node: dict[str, Any] | None) -> "Layout":
        """From the configuration; what it leaves out stays as it is here.

        Raises:
            UserError: If it has another field.
        """
        given = dict(node or {})
        for name in given.keys() - cls.__dataclass_fields__.keys():
            raise problem(
                "report", "no such field", name, did_you_mean(name, cls.__dataclass_fields__)
            )
        for name in given.keys() & {"rows", "columns", "metrics"}:
            value = given[name]
            given[name] = (value,) if isinstance(value, str) else tuple(value)
        return cls(**given)

    @property
    def fields(self) -> list[str]:
        """Everything that tells cells apart."""
        return distinct([*NAMES, *self.rows, *self.columns])


@dataclass
class Cell:
    """Runs that differ in their seed only.

    Attributes:
        runs: finished and missing.
        values: of the finished ones, by seed, in the unit shown.
        paper: the paper's number.
    """

    runs: list[Run]
    values: dict[Any, float]
    paper: Printed | None = None

    @property
    def mean(self) -> float | None:
        """Over the seeds; ``None`` without a finished run."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds (n - 1); ``None`` below two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def missing(self) -> int:
        """Runs that are not finished."""
        return sum(run.result is None for run in self.runs)


@dataclass
class Table:
    """One metric of one group of runs.

    Attributes:
        title: what all cells share.
        metric: that is shown.
        row_fields: what a row is.
        column_fields: what a column is.
        rows: in order.
        columns: in order.
        cells: where there are runs.
        averages: over the rows that all columns have, with the paper's average.
        averaged: how many rows those are.
        unlike: settings or data that differ between rows or columns of the same name.
    """

    title: str
    metric: Metric
    row_fields: tuple[str, ...]
    column_fields: tuple[str, ...]
    rows: list[Key] = field(default_factory=list)
    columns: list[Key] = field(default_factory=list)
    cells: dict[tuple[Key, Key], Cell] = field(default_factory=dict)
    averages: dict[Key, tuple[float, float | None]] = field(default_factory=dict)
    averaged: int = 0
    unlike: list[str] = field(default_factory=list)

    def best(self, row: Key) -> list[Key]:
        """The columns of the best mean of a row; none while runs of it are missing."""
        cells = {c: self.cells[row, c] for c in self.columns if (row, c) in self.cells}
        if any(cell.missing for cell in cells.values()):
            return []
        return best_of({c: m.mean for c, m in cells.items() if m.mean is not None}, self.metric)


def best_of(means: dict[Key, float], metric: Metric) -> list[Key]:
    """Keys of the best value, as it is printed."""
    if len(means) <= 1 or metric.highest is None:
        return []
    shown = {key: round(mean, metric.digits) for key, mean in means.items()}
    best = (max if metric.highest else min)(shown.values())
    return [key for key, mean in shown.items() if mean == best]


def tables_of(runs: Sequence[Run], layout: Layout) -> list[Table]:
    """All tables of a report.

    Runs that differ in a setting or in the number of images are never averaged: what differs
    becomes part of the name of the row, or of the column if it belongs to the method.

    Args:
        runs: in the order in which rows and columns are to appear.
        layout: of the tables.
    """
    used = {*layout.rows, *layout.columns}
    others = [n for n in NAMES if n not in used and len({r.value(n) for r in runs}) > 1]
    groups: dict[Key, list[Run]] = defaultdict(list)
    for run in runs:
        groups[tuple(str(run.value(name)) for name in others)].append(run)
    unlike = _unlike(runs, layout)
    return [
        _table(group, layout, METRICS.get(name, Metric(name, name)), unlike, title=", ".join(key))
        for key, group in groups.items()
        for name in layout.metrics
    ]


def _unlike(runs: Sequence[Run], layout: Layout) -> list[str]:
    """Facts that differ between finished runs that would stand in the same cell."""
    groups: dict[Key, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        if run.result is not None:
            groups[tuple(str(run.value(name)) for name in layout.fields)].append(run.protocol())
    names = [
        name
        for protocols in groups.values()
        for name in distinct(name for protocol in protocols for name in protocol)
        if len({protocol.get(name) for protocol in protocols}) > 1
    ]
    return distinct(names)


def _table(
    runs: Sequence[Run], layout: Layout, metric: Metric, unlike: list[str], title: str
) -> Table:
    table = Table(title, metric, layout.rows, layout.columns, unlike=unlike)
    cells: dict[tuple[Key, Key], list[Run]] = defaultdict(list)
    of_method = [name for name in unlike if name.startswith("method.")]
    of_row = [name for name in unlike if name not in of_method]
    for run in runs:
        row = (*_names(run, layout.rows), *_marks(run, of_row))
        column = (*_names(run, layout.columns), *_marks(run, of_method))
        cells[row, column].append(run)
    table.rows = distinct(row for row, _ in cells)
    table.columns = distinct(column for _, column in cells)
    for key, members in cells.items():
        values = {
            run.value("seed"): run.result[metric.name] * metric.scale
            for run in members
            if run.result is not None and run.result.get(metric.name) is not None
        }
        paper = printed(layout.paper, members[0], metric.name) if layout.paper else None
        table.cells[key] = Cell(members, values, paper)
    _average(table, layout.paper)
    return table


def _names(run: Run, fields: Iterable[str]) -> Key:
    """Values of the fields; one that the run's method does not have is left out."""
    return tuple(str(run.value(name)) for name in fields if run.value(name) is not None)


def _marks(run: Run, unlike: Sequence[str]) -> Key:
    facts = run.protocol()
    return tuple(f"{name}={facts[name]}" for name in unlike if name in facts)


def _average(table: Table, paper: str | None) -> None:
    def mean(row: Key, column: Key) -> float | None:
        cell = table.cells.get((row, column))
        return cell.mean if cell else None

    common = [r for r in table.rows if all(mean(r, c) is not None for c in table.columns)]
    table.averaged = len(common)
    if len(common) <= 1:
        return
    for column in table.columns:
        mean_of_rows = statistics.fmean(table.cells[row, column].mean or 0.0 for row in common)
        run = table.cells[common[0], column].runs[0]
        other = printed(paper, run, table.metric.name, average=True) if paper else None
        table.averages[column] = (mean_of_rows, other.mean if other else None)
