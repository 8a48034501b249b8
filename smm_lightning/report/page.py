"""One HTML file that shows a report anywhere: no script, no network."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader
from PIL import Image

from smm_lightning.report.comparison import comparisons
from smm_lightning.report.render import COMPARED, Report, compared_row, heading, label, shown_rows
from smm_lightning.report.runs import Run

FIGURES_OF_RUN = ("pictures", "mapping", "confusion", "curves")
_MOST_FIGURES = 64  # a page of hundreds of runs would be too large to send


def page(report: Report, runs: Sequence[Run], folder: Path) -> str:
    """The page.

    Args:
        report: its tables and notes.
        runs: whose figures (in ``figures`` of a run) are shown, the first ones if there are many.
        folder: of the report, whose own figures come first.
    """
    found = figures_of(runs, folder)
    shown = found[:_MOST_FIGURES]
    environment = Environment(loader=PackageLoader("smm_lightning.report", "."), autoescape=True)
    return environment.get_template("page.html.j2").render(
        report=report,
        tables=[
            {
                "heading": heading(table),
                "columns": [label(column) for column in table.columns],
                "rows": shown_rows(table),
                "comparison": [compared_row(found) for found in comparisons(table)],
            }
            for table in report.tables
        ],
        compared=COMPARED,
        figures={
            title: [
                (path.parent.parent.name, path.stem, embedded(path))
                for own, path in shown
                if own == title
            ]
            for title, _ in shown
        },
        figures_left=len(found) - len(shown),
    )


def embedded(path: Path) -> str:
    """A picture as an address that holds it, a few times smaller than the PNG."""
    buffer = io.BytesIO()
    try:
        with Image.open(path) as picture:
            picture.convert("RGB").save(buffer, "WEBP", quality=80)
    except OSError:  # damaged; its caption shows which
        return "data:,"
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def figures_of(runs: Sequence[Run], folder: Path) -> list[tuple[str, Path]]:
    """Headings and files: comparisons first, then of the runs one kind after the other."""
    found = [("Comparisons", path) for path in sorted((folder / "figures").glob("*.png"))]
    for kind in FIGURES_OF_RUN:
        paths = (run.folder / "figures" / f"{kind}.png" for run in runs)
        found += [(f"Runs: {kind}", path) for path in paths if path.is_file()]
    return found
