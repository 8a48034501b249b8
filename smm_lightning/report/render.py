"""Tables as Markdown, CSV and LaTeX."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from smm_lightning.report.comparison import Comparison, comparisons
from smm_lightning.report.tables import Cell, Key, Table, best_of

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Shown:
    """The text of a cell, the same in every format.

    Attributes:
        value: mean and standard deviation.
        seeds: how many there are, where some are missing.
        paper: the paper's number and the difference to it.
        best: whether it is the best of its row.
    """

    value: str
    seeds: str = ""
    paper: str = ""
    best: bool = False


@dataclass(frozen=True)
class Report:
    """Everything that the formats show.

    Attributes:
        title: of the grid.
        tables: of it.
        notes: a line each.
    """

    title: str
    tables: Sequence[Table]
    notes: Sequence[str]


def label(key: Key) -> str:
    """Of a row or a column."""
    return ", ".join(key)


def heading(table: Table) -> str:
    """Of a table: what it shows, in which unit, of which runs."""
    unit = f" ({table.metric.unit})" if table.metric.unit else ""
    return f"{table.metric.title}{unit}" + (f": {table.title}" if table.title else "")


def shown_rows(table: Table) -> list[tuple[str, list[Shown]]]:
    """Rows with their labels, the average last."""
    rows = []
    for row in table.rows:
        best = table.best(row)
        cells = [table.cells.get((row, column)) for column in table.columns]
        shown = [_shown(table, cell, best=c in best) for c, cell in zip(table.columns, cells)]  # noqa: B905
        rows.append((label(row), shown))
    if table.averages:
        whole = not any(cell.missing for cell in table.cells.values())
        means = {column: mean for column, (mean, _) in table.averages.items() if whole}
        best = best_of(means, table.metric)
        of = "" if table.averaged == len(table.rows) else f" of {table.averaged} rows"
        shown = [
            Shown(_number(table, mean), "", _against(table, mean, paper), column in best)
            for column, (mean, paper) in table.averages.items()
        ]
        rows.append((f"average{of}", shown))
    return rows


def _shown(table: Table, cell: Cell | None, *, best: bool) -> Shown:
    if cell is None:
        return Shown("")
    seeds = f"n = {len(cell.values)} of {len(cell.runs)}" if cell.missing else ""
    if cell.mean is None:
        paper = f"paper {_paper(table, cell)}" if cell.paper else ""
        return Shown(DASH, seeds, paper)
    spread = "" if cell.std is None else f" ± {_number(table, cell.std)}"
    paper = _against(table, cell.mean, cell.paper.mean, _paper(table, cell)) if cell.paper else ""
    return Shown(_number(table, cell.mean) + spread, seeds, paper, best)


def _paper(table: Table, cell: Cell) -> str:
    assert cell.paper is not None
    std = "" if cell.paper.std is None else f" ± {_number(table, cell.paper.std)}"
    return _number(table, cell.paper.mean) + std


def _against(table: Table, mean: float, paper: float | None, text: str = "") -> str:
    if paper is None:
        return ""
    return f"paper {text or _number(table, paper)}, {mean - paper:+.{table.metric.digits}f}"


def _number(table: Table, value: float) -> str:
    return f"{value:.{table.metric.digits}f}"


COMPARED = (
    "SMM against",
    "rows",
    "pairs",
    "difference",
    "95 % over rows",
    "95 % over seeds",
    "won",
)


def compared_row(comparison: Comparison) -> tuple[str, ...]:
    """A line of the paired comparison; see :class:`Comparison`."""
    ours = "" if comparison.ours == ("smm",) else f" by {label(comparison.ours)}"
    return (
        label(comparison.theirs) + ours,
        str(comparison.rows),
        str(comparison.pairs),
        f"{comparison.mean:+.1f}",
        _interval(comparison.over_rows),
        _interval(comparison.over_seeds),
        f"{comparison.won} of {comparison.rows}",
    )


def _interval(interval: tuple[float, float] | None) -> str:
    return DASH if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}"


def markdown(report: Report) -> str:
    """For READMEs and terminals."""
    parts = [f"# {report.title}", "\n".join(f"- {note}" for note in report.notes)]
    for table in report.tables:
        parts.append(f"## {heading(table)}")
        head = ["", *(label(column) for column in table.columns)]
        body = [[name, *(_markdown_cell(s) for s in cells)] for name, cells in shown_rows(table)]
        parts.append(_markdown_table(head, body))
        if compared := comparisons(table):
            parts.append("Paired by row and seed; a difference above 0 speaks for SMM:")
            parts.append(_markdown_table(COMPARED, [compared_row(each) for each in compared]))
    return "\n\n".join(parts) + "\n"


def _markdown_cell(shown: Shown) -> str:
    value = f"**{shown.value}**" if shown.best else shown.value
    more = "; ".join(part for part in (shown.seeds, shown.paper) if part)
    return f"{value} ({more})" if more else value


def _markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *body]
    escaped = [[text.replace("|", r"\|") for text in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def latex(report: Report) -> str:
    """Tables to include in a paper; they need the package booktabs."""
    parts = [f"% {note}" for note in report.notes]
    for table in report.tables:
        columns = [_tex(label(column)) for column in table.columns]
        lines = [f"\\begin{{tabular}}{{l{'c' * len(columns)}}}", "\\toprule"]
        lines += [" & ".join(["", *columns]) + r" \\", "\\midrule"]
        for name, cells in shown_rows(table):
            if name.startswith("average"):
                lines.append("\\midrule")
            lines.append(" & ".join([_tex(name), *(_tex_cell(cell) for cell in cells)]) + r" \\")
        parts.append(f"% {heading(table)}")
        parts.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}"]))
    return "\n".join(parts) + "\n"


def _tex_cell(shown: Shown) -> str:
    value = _tex(shown.value).replace(" ± ", r"\,$\pm$\,").replace(DASH, "--")
    value = rf"\textbf{{{value}}}" if shown.best else value
    more = "; ".join(part for part in (shown.seeds, shown.paper) if part)
    return rf"{value} {{\scriptsize({_tex(more)})}}".replace("±", r"$\pm$") if more else value


def _tex(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "&%$#_{}" else letter for letter in text)


def as_csv(report: Report) -> str:
    """A line a cell, for spreadsheets and other programs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("metric", "unit", "table", "row", "column", "mean", "std", "n", "missing")
    writer.writerow([*head, "paper_mean", "paper_std", "difference"])
    for table in report.tables:
        for (row, column), cell in table.cells.items():
            paper = cell.paper
            known = paper is not None and cell.mean is not None
            numbers = (cell.mean, cell.std, len(cell.values), cell.missing)
            others = (paper and paper.mean, paper and paper.std)
            difference = cell.mean - paper.mean if known else None  # type: ignore[operator, union-attr]
            names = (table.metric.name, table.metric.unit, table.title, label(row), label(column))
            writer.writerow([*names, *numbers, *others, difference])
    return text.getvalue()
