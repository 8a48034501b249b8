"""From runs to tables: mean and standard deviation over seeds, never over unlike runs."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from smm_lightning.report.layout import BEST, METRICS, Layout, Metric
from smm_lightning.report.paper import printed
from smm_lightning.report.runs import NAMES, Run, differing, distinct
from smm_lightning.run.card import comparable, unlike_protocols
from smm_lightning.run.card import lines as card_lines
from smm_lightning.text import in_a_line


@dataclass(frozen=True)
class Table:
    """One metric of one group of runs.

    Attributes:
        title: what all cells share.
        metric: that is shown.
        runs: a row a run: the labels of its ``row`` and ``column``, its ``seed``, and its ``value``
            in the unit shown, NaN where it is missing.
        cells: by row and column the ``mean`` and standard deviation (``std``) of the ``n`` finished
            runs, how many are ``missing``, and the paper's number (``paper``, ``paper_std``, and
            ``paper_of`` what, if it is of something else).
        averages: by column the ``mean`` over the rows that all columns have, and the ``paper``'s;
            empty below two such rows, and where rows are no datasets.
        averaged: how many rows those are.
        columns_by_field: values of the fields that make a column, by its label.
        colours: of the columns' methods.
        of_datasets: whether every row is another dataset.
        unlike: settings or data that differ between rows or columns of the same name.
        mixed: of the cards, what differs between rows, over which then nothing is averaged.
        card: how its numbers were made, in lines.
    """

    title: str
    metric: Metric
    runs: pd.DataFrame
    cells: pd.DataFrame
    averages: pd.DataFrame
    averaged: int
    columns_by_field: Mapping[str, Mapping[str, str]]
    colours: Mapping[str, str]
    of_datasets: bool
    unlike: Sequence[str]
    mixed: Sequence[str]
    card: Sequence[str]

    @property
    def rows(self) -> list[str]:
        """Labels of the rows, in order."""
        return distinct(self.cells.index.get_level_values("row"))

    @property
    def columns(self) -> list[str]:
        """Labels of the columns, in order."""
        return distinct(self.cells.index.get_level_values("column"))

    def best(self, row: str) -> list[str]:
        """The columns of the best mean of a row; none while runs of it are missing."""
        cells = self.cells.loc[row]
        return [] if cells["missing"].any() else best_of(cells["mean"].dropna(), self.metric)


def best_of(means: "pd.Series[float]", metric: Metric) -> list[str]:
    """Labels of the best value, as it is printed."""
    if len(means) <= 1 or metric.highest is None:
        return []
    shown = means.map(lambda mean: round(mean, metric.digits))  # as f-strings do, unlike NumPy
    best = shown.max() if metric.highest else shown.min()
    return list(shown.index[shown == best])


def tables_of(runs: Sequence[Run], layout: Layout) -> list[Table]:
    """All tables of a report.

    Runs that differ in a setting or in the number of images are never averaged: what differs
    becomes part of the name of the row, or of the column if it belongs to the method.

    Args:
        runs: in the order in which rows and columns are to appear; see :func:`chosen_on_val`.
        layout: of the tables.
    """
    used = {*layout.rows, *layout.columns}
    known = {name for run in runs for name in BEST if (run.result or {}).get(name) is not None}
    metrics = [name for name in layout.metrics if name not in BEST or name in known]
    others = [n for n in NAMES if n not in used and len({r.value(n) for r in runs}) > 1]
    apart = _unlike(runs, layout)
    frame = pd.DataFrame(
        {
            "title": ", ".join(in_a_line(run.value(name)) for name in others if _tells(run, name)),
            "row": ", ".join(_fields(run, layout.rows, apart, of_method=False).values()),
            "column": ", ".join(_fields(run, layout.columns, apart, of_method=True).values()),
            "seed": run.value("seed"),
            "run": run,
        }
        for run in runs
    )
    return [
        _table(str(title), group, METRICS.get(name, Metric(name, name)), layout, apart)
        for title, group in frame.groupby("title", sort=False)
        for name in metrics or layout.metrics
    ]


def _tells(run: Run, name: str) -> bool:
    """An adapter that is none goes without saying."""
    return name != "adapter.name" or run.value(name) != "none"


def unlike_cards(runs: Sequence[Run], layout: Layout) -> dict[str, list[Any]]:
    """What differs between the cards of runs that would be averaged or compared, and its values.

    Args:
        runs: of a report.
        layout: of its tables.
    """
    found: dict[str, list[Any]] = defaultdict(list)
    for alike in _grouped(runs, layout.compared):
        for name in differing([comparable(run.card) for run in alike]):
            found[name] += [run.card.get(name) for run in alike]
    return dict(found)


def _unlike(runs: Sequence[Run], layout: Layout) -> list[str]:
    """Facts that differ between finished runs that would be averaged or compared."""
    names = [
        name
        for alike in _grouped(runs, layout.cell)
        for name in differing([run.protocol() for run in alike])
    ]
    return distinct([*unlike_cards(runs, layout), *names])


def _grouped(runs: Sequence[Run], key: Callable[[Run], tuple[str, ...]]) -> list[list[Run]]:
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.result is not None:
            groups[key(run)].append(run)
    return list(groups.values())


def _fields(
    run: Run, fields: Iterable[str], unlike: Sequence[str], *, of_method: bool
) -> dict[str, str]:
    """What names a run's row or column; a field that its method does not have is left out."""
    names = {n: in_a_line(run.value(n)) for n in fields if run.value(n) is not None}
    facts = run.protocol() if unlike else {}
    marks = [n for n in unlike if n in facts and n.startswith("method.") == of_method]
    return {**names, **{name: in_a_line(f"{name}={facts[name]}") for name in marks}}


def _table(
    title: str, group: pd.DataFrame, metric: Metric, layout: Layout, apart: Sequence[str]
) -> Table:
    def value(run: Run) -> float:
        number = (run.result or {}).get(metric.name)
        return math.nan if number is None else float(number) * metric.scale

    runs = group.assign(
        value=group["run"].map(value), missing=group["run"].map(lambda run: run.result is None)
    )
    cells = runs.groupby(["row", "column"], sort=False).agg(
        mean=("value", "mean"),
        std=("value", "std"),
        n=("value", "count"),
        missing=("missing", "sum"),
        run=("run", "first"),
    )
    numbers = [_printed(layout, run, metric) for run in cells["run"]]
    cells[["paper", "paper_std", "paper_of"]] = numbers
    means = cells["mean"].unstack("column", sort=False).dropna()
    # Where a dataset has several rows, because its runs differ, an average would count it twice.
    datasets = {run.value("dataset.name") for run in group["run"]}
    of_datasets = layout.rows == ("dataset.name",) and len(datasets) == group["row"].nunique()
    cards = [run.card for run in group["run"] if run.result is not None]
    mixed = unlike_protocols(cards)
    if mixed or not of_datasets:
        means = means[:0]
    firsts = cells.loc[means.index[0], "run"] if len(means) > 1 else {}
    own = not cells["paper_of"].any()  # the paper's average is of its own datasets
    averages = {
        column: (
            means[column].mean(),
            _printed(layout, run, metric, average=True)[0] if own else math.nan,
        )
        for column in distinct(cells.index.get_level_values("column"))
        if (run := dict(firsts).get(column)) is not None
    }
    return Table(
        title,
        metric,
        runs[["row", "column", "seed", "value"]],
        cells.drop(columns="run"),
        pd.DataFrame.from_dict(averages, orient="index", columns=["mean", "paper"]),
        len(means),
        {
            column: _fields(run, layout.columns, apart, of_method=True)
            for column, run in zip(runs["column"], runs["run"], strict=True)
        },
        {column: run.look.colour for column, run in zip(runs["column"], runs["run"], strict=True)},
        of_datasets,
        apart,
        mixed,
        card_lines(cards),
    )


def _printed(
    layout: Layout, run: Run, metric: Metric, *, average: bool = False
) -> tuple[float, float, str]:
    """The paper's mean and standard deviation, NaN where it prints none, and what else it is of."""
    if layout.paper is None:
        return math.nan, math.nan, ""
    number = printed(layout.paper, run, metric.name, layout.paper_names, average=average)
    if number is None:
        return math.nan, math.nan, ""
    std = math.nan if number.std is None else number.std
    return number.mean, std, ", ".join(number.names)
