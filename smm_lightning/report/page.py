"""One HTML file that shows a report anywhere: no script, no network."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader

from smm_lightning.report.comparison import comparisons
from smm_lightning.report.render import COMPARED, Report, compared_row, heading, label, shown_rows
from smm_lightning.report.runs import Run

_MOST_PICTURES = 24  # a page of hundreds of runs would be too large to send


def page(report: Report, runs: Sequence[Run], folder: Path) -> str:
    """The page.

    Args:
        report: its tables and notes.
        runs: whose pictures (``figures/*.png`` of a run) are shown, the first ones if many.
        folder: of the report, whose own pictures come first.
    """
    places = [folder, *(run.folder for run in runs)]
    pictures = [path for place in places for path in sorted((place / "figures").glob("*.png"))]
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
        pictures=[
            (
                f"{path.parent.parent.name}: {path.stem}",
                base64.b64encode(path.read_bytes()).decode(),
            )
            for path in pictures[:_MOST_PICTURES]
        ],
        pictures_left=max(0, len(pictures) - _MOST_PICTURES),
    )
