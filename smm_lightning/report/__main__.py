"""``smm report <experiment or folder>``: its tables, beside the paper's.

Written as Markdown, CSV, LaTeX and a page, below ``reports`` of the folder of the runs.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from smm_lightning.errors import Problems, UserError
from smm_lightning.files import at, write_atomically, writing
from smm_lightning.report.answer import answer
from smm_lightning.report.chosen import chosen_on_val
from smm_lightning.report.layout import Layout
from smm_lightning.report.notes import notes_of
from smm_lightning.report.page import page
from smm_lightning.report.paper import printed_order, setting_fields
from smm_lightning.report.render import Report, as_csv, latex, markdown
from smm_lightning.report.runs import Run, distinct, flattened, runs_below
from smm_lightning.report.tables import tables_of, unlike_cards
from smm_lightning.run.card import shown_value
from smm_lightning.run.identity import identity
from smm_lightning.run.look import Look
from smm_lightning.run.recorded import Tables
from smm_lightning.run.result import broken_result
from smm_lightning.text import in_a_line


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", help="a file of conf/experiment, or a folder of runs")
    parser.add_argument("overrides", nargs="*", help="as after ./multirun.sh <experiment>")
    parser.add_argument(
        "--record",
        action="store_true",
        help="put the finished runs into <paths.results>/<experiment>.csv, for version control",
    )
    parser.add_argument(
        "--separate",
        action="store_true",
        help="runs of unlike protocol cards into rows of their own, instead of refusing them",
    )
    options = parser.parse_intermixed_args()
    broken: list[str] = []
    beside: Grid | None = None
    if at(options.what).is_dir():
        if options.overrides or options.record:
            what = "--record" if options.record else "overrides"
            raise UserError(f"report: a folder takes no {what}. Name an experiment instead.")
        root = at(options.what)
        found, broken = runs_below(root)
        runs = sorted(found, key=printed_order)
        title, layout = f"Runs in {root.resolve().name}", Layout()
    else:
        title = title_of(options.what, options.overrides)
        grid = grid_of(options.what, options.overrides)
        runs, layout, root, broken = grid.runs, grid.layout, grid.root, grid.broken
        if layout.beside:
            beside = grid_of(layout.beside[0], [*options.overrides, *layout.beside[1:]])
        if options.record:
            print(grid.tables.record(options.what, grid.rows()))
    folder = folder_of(root, title)
    with writing("report", folder):
        report = report_of(title, runs, layout, broken, separate=options.separate)
        if beside is not None:
            report = with_beside(report, beside, separate=options.separate)
        print(write_report(report, runs, folder))
    print(f"written to {folder}/: report.html report.md report.csv report.tex")


def title_of(experiment: str, overrides: Sequence[str]) -> str:
    """The experiment, and what was changed on the command line, but for places."""
    from smm_lightning.run.grid import decisive

    changed = [override for override in decisive(overrides) if not override.startswith("paths.")]
    return " ".join([experiment, *changed])


def folder_of(root: Path, title: str) -> Path:
    """Of a report and its figures, below the folder of the runs: another grid has another one."""
    return root / "reports" / re.sub(r"[^\w=.,+-]", "_", title)[:200]


@dataclass(frozen=True)
class Grid:
    """What an experiment asks for, and what came of it.

    Attributes:
        runs: finished and missing, in the order in which they are started.
        layout: of its tables.
        root: the folder of the runs.
        tables: of finished grids.
        broken: what is wrong with results that cannot be read, a line each.
        command: the experiment and its overrides.
    """

    runs: list[Run]
    layout: Layout
    root: Path
    tables: Tables
    broken: list[str]
    command: tuple[str, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Results for ``--record``, each with what was tried in it, which no name says."""
        finished = [run for run in self.runs if run.result is not None]
        tried = [{field: run.value(field) for field in self.layout.tried} for run in finished]
        return [{**run.finished, "tried": t} for run, t in zip(finished, tried, strict=True)]


def grid_of(experiment: str, overrides: Sequence[str]) -> Grid:
    """The runs of an experiment; one without a result of its own may stand in a table.

    Raises:
        UserError: If there is no such grid.
    """
    from omegaconf import OmegaConf

    from smm_lightning.run.grid import expand

    jobs = expand(experiment, overrides)
    first = jobs[0].config
    node: Any = first.get("report")
    layout = Layout.of(None if node is None else OmegaConf.to_container(node))  # type: ignore[arg-type]
    settings = setting_fields(layout.paper) if layout.paper else []
    looks = [f"method.look.{name}" for name in Look.__dataclass_fields__]
    wanted = distinct([*layout.fields, *layout.tried, *settings, *looks, "seed"])
    tables, runs = jobs[0].tables, []
    for job in jobs:
        result = job.run.result()
        if result is None and (row := tables.rows.get(job.run.key)):
            settled = identity(job.config)
            result = {**row, "identity": settled, "config": {**row["config"], **settled}}
        values = dict(flattened(result["config"])) if result else {}
        settings_of_job = {field: job.value(field) for field in wanted}
        runs.append(Run(job.run.path, {**values, **settings_of_job}, result))
    broken = [line for run in runs if run.result is None and (line := broken_result(run.folder))]
    command = (experiment, *overrides)
    return Grid(runs, layout, jobs[0].run.path.parent, tables, broken, command)


def report_of(
    title: str,
    runs: Sequence[Run],
    layout: Layout,
    broken: Sequence[str] = (),
    *,
    separate: bool = False,
) -> Report:
    """Tables, what they answer, and what to know of them.

    Args:
        title: of the grid.
        runs: in the order in which they are to appear.
        layout: of the tables.
        broken: what is wrong with results that were left out.
        separate: put runs of unlike cards into rows of their own.

    Raises:
        UserError: If runs of unlike cards would be averaged or compared.
    """
    if not separate:
        require_like_cards(runs, layout)
    shown, chosen = chosen_on_val(runs, layout)
    tables = tables_of(shown, layout)
    notes = [*notes_of(runs, tables), *chosen, *(f"Left out: {b}" for b in broken)]
    return Report(in_a_line(title), tables, [in_a_line(note) for note in notes], answer(tables))


def require_like_cards(runs: Sequence[Run], layout: Layout) -> None:
    """Numbers that were made in another way are not compared.

    Raises:
        UserError: A line for everything that differs.
    """
    problems = Problems()
    for name, values in unlike_cards(runs, layout).items():
        counted = (f"{shown_value(v)} in {values.count(v)}" for v in distinct(values))
        what = f"unlike protocol cards: {name} is {', '.join(counted)} of {len(values)} runs"
        hint = "--separate puts them into rows of their own."
        problems.add("report", what, hint="" if problems.lines else hint)
    problems.raise_if_any()


def with_beside(report: Report, grid: Grid, *, separate: bool = False) -> Report:
    """The tables of another grid behind those of a report."""
    name, *overrides = grid.command
    other = report_of(name, grid.runs, grid.layout, grid.broken, separate=separate)
    tables = [
        replace(table, title=", ".join(filter(None, [f"beside it {name}", table.title])))
        for table in other.tables
    ]
    beside = f"Beside it ({' '.join([name, *overrides])})"
    notes = [*report.notes, *(f"{beside}: {in_a_line(note)}" for note in other.notes)]
    return replace(report, tables=[*report.tables, *tables], notes=notes)


def write_report(report: Report, runs: Sequence[Run], folder: Path) -> str:
    """All formats, each in one step, into ``folder``.

    Args:
        report: to write.
        runs: whose figures the page shows.
        folder: of the report.

    Returns:
        The Markdown.

    Raises:
        OSError: If the folder cannot be written.
    """
    text = markdown(report)
    for name, content in (
        ("report.md", text),
        ("report.csv", as_csv(report)),
        ("report.tex", latex(report)),
        ("report.html", page(report, runs, folder)),
    ):
        write_atomically(folder / name, content.encode(errors="surrogateescape"))
    return text
