"""Tables as Markdown, CSV and LaTeX."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from smm_lightning.report.comparison import OURS, Comparison, compare_methods
from smm_lightning.report.tables import Table, best_of
from smm_lightning.text import as_markdown, csv_cell

DASH = "\N{EN DASH}"
_TEX = {letter: f"\\{letter}" for letter in "&%$#_{}"}
_TEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "[": "{[}"}  # a length, after \\


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
        answer: what a reader looks for, in sentences; the first is the most important one.
    """

    title: str
    tables: Sequence[Table]
    notes: Sequence[str]
    answer: Sequence[str] = ()


def heading(table: Table) -> str:
    """Of a table: what it shows, in which unit, of which runs."""
    unit = f" ({table.metric.unit})" if table.metric.unit else ""
    return f"{table.metric.title}{unit}" + (f": {table.title}" if table.title else "")


def cards_of(tables: Sequence[Table]) -> list[Sequence[str]]:
    """The lines of each table's card; one that is that of the table before is not repeated."""
    before = [None, *(table.card for table in tables)]
    pairs = zip(tables, before, strict=False)
    return [["as above"] if card == table.card and card else table.card for table, card in pairs]


def shown_rows(table: Table) -> list[tuple[str, list[Shown]]]:
    """Rows with their labels, the average last."""
    cells: dict[Any, dict[str, float]] = table.cells.to_dict("index")
    rows = []
    for row in table.rows:
        best = table.best(row)
        pairs = [(column, cells.get((row, column))) for column in table.columns]
        rows.append((row, [_shown(table, cell, best=column in best) for column, cell in pairs]))
    if len(table.averages):
        whole = not table.cells["missing"].any()
        best = best_of(table.averages["mean"], table.metric) if whole else []
        of = "" if table.averaged == len(table.rows) else f" of {table.averaged} rows"
        averages = table.averages.to_dict("index").items()
        shown = [
            Shown(_number(table, mean["mean"]), "", _against(table, mean), column in best)
            for column, mean in averages
        ]
        rows.append((f"average{of}", shown))
    return rows


def _shown(table: Table, cell: dict[str, float] | None, *, best: bool) -> Shown:
    if cell is None:
        return Shown("")
    seeds = f"n = {cell['n']:.0f} of {cell['n'] + cell['missing']:.0f}" if cell["missing"] else ""
    value = DASH if math.isnan(cell["mean"]) else _with_std(table, cell["mean"], cell["std"])
    return Shown(value, seeds, _against(table, cell), best)


def _with_std(table: Table, mean: float, std: float = math.nan) -> str:
    return _number(table, mean) + ("" if math.isnan(std) else f" ± {_number(table, std)}")


def _against(table: Table, cell: dict[str, float]) -> str:
    """The paper's number, and the difference to it."""
    if math.isnan(cell["paper"]):
        return ""
    text = f"paper {_with_std(table, cell['paper'], cell.get('paper_std', math.nan))}"
    difference = math.nan if cell.get("paper_of") else cell["mean"] - cell["paper"]
    digits = table.metric.digits
    return text if math.isnan(difference) else f"{text}, {difference:+.{digits}f}"


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
    ours = "" if comparison.ours == OURS else f" by {comparison.ours}"
    return (
        comparison.theirs + ours,
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
    notes = "\n".join(f"- {as_markdown(note)}" for note in report.notes)
    details = "\n".join(f"- {as_markdown(line)}" for line in report.answer[1:])
    lead = "".join(report.answer[:1])
    above = [f"# {as_markdown(report.title)}", as_markdown(lead), details, notes]
    parts = [part for part in above if part]
    for table, card in zip(report.tables, cards_of(report.tables), strict=True):
        parts.append(f"## {as_markdown(heading(table))}")
        head = ["", *table.columns]
        body = [[name, *(_markdown_cell(s) for s in cells)] for name, cells in shown_rows(table)]
        parts.append(_markdown_table(head, body))
        if compared := compare_methods(table):
            parts.append("Paired by row and seed; a difference above 0 speaks for SMM:")
            parts.append(_markdown_table(COMPARED, [compared_row(each) for each in compared]))
        parts += [f"Card: {as_markdown(line)}" for line in card]
    return "\n\n".join(parts) + "\n"


def _markdown_cell(shown: Shown) -> str:
    value = f"**{shown.value}**" if shown.best else shown.value
    more = "; ".join(part for part in (shown.seeds, shown.paper) if part)
    return f"{value} ({more})" if more else value


def _markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Of names in the first row and column, and cells of ours."""
    named = [[as_markdown(line[0]), *line[1:]] for line in body]
    lines = [[as_markdown(name) for name in head], ["---"] * len(head), *named]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(report: Report) -> str:
    """Tables to include in a paper; they need the package booktabs."""
    parts = [f"% {line}" for line in (*report.answer, *report.notes)]
    for table, card in zip(report.tables, cards_of(report.tables), strict=True):
        columns = [_tex(column) for column in table.columns]
        lines = [f"\\begin{{tabular}}{{l{'c' * len(columns)}}}", "\\toprule"]
        lines += [" & ".join(["", *columns]) + r" \\", "\\midrule"]
        for name, cells in shown_rows(table):
            if name.startswith("average"):
                lines.append("\\midrule")
            lines.append(" & ".join([_tex(name), *(_tex_cell(cell) for cell in cells)]) + r" \\")
        parts.append("\n".join(f"% {line}" for line in (heading(table), *card)))
        parts.append("\n".join([*lines, "\\bottomrule", "\\end{tabular}"]))
    return "\n".join(parts) + "\n"


def _tex_cell(shown: Shown) -> str:
    value = _tex(shown.value).replace(" ± ", r"\,$\pm$\,").replace(DASH, "--")
    value = rf"\textbf{{{value}}}" if shown.best else value
    more = "; ".join(part for part in (shown.seeds, shown.paper) if part)
    return rf"{value} {{\scriptsize({_tex(more)})}}".replace("±", r"$\pm$") if more else value


def _tex(text: str) -> str:
    return "".join(_TEX.get(letter, letter) for letter in text)


def as_csv(report: Report) -> str:
    """A line a cell, for spreadsheets and other programs."""
    frames = []
    for table in report.tables:
        named = {"metric": table.metric.name, "unit": table.metric.unit, "table": table.title}
        cells = table.cells.reset_index().assign(**named).map(csv_cell)
        differences = (cells["mean"] - cells["paper"]).where(cells["paper_of"] == "")
        frames.append(cells.assign(difference=differences))
    columns = ["metric", "unit", "table", "row", "column", "mean", "std", "n", "missing"]
    everything = pd.concat(frames)[[*columns, "paper", "paper_std", "difference"]]
    text: str = everything.to_csv(index=False, lineterminator="\n")
    return text
