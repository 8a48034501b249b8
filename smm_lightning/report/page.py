"""One HTML file that shows a report anywhere: no script, no network."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader
from PIL import Image

from smm_lightning.report.chart import chart_of
from smm_lightning.report.comparison import compare_methods
from smm_lightning.report.render import (
    COMPARED,
    Report,
    cards_of,
    compared_row,
    heading,
    shown_rows,
)
from smm_lightning.report.runs import Run

_WIDE = 1.4  # times as wide as high
_MOST_FIGURES = 64  # a page of hundreds of runs would be too large to send


def page(report: Report, runs: Sequence[Run], folder: Path) -> str:
    """The page.

    Args:
        report: its tables and notes.
        runs: whose figures (in ``figures`` of a run) are shown, the first ones if there are many.
        folder: of the report, whose own figures come first.
    """
    pictures = figures_of(runs, folder)
    shown = pictures[:_MOST_FIGURES]
    environment = Environment(loader=PackageLoader("smm_lightning.report", "."), autoescape=True)
    return environment.get_template("page.html.j2").render(
        report=report,
        chart=next((c for t in report.tables if (c := chart_of(t, heading(t)))), None),
        tables=[
            {
                "heading": heading(table),
                "columns": table.columns,
                "card": card,
                "rows": shown_rows(table),
                "comparison": [compared_row(each) for each in compare_methods(table)],
            }
            for table, card in zip(report.tables, cards_of(report.tables), strict=True)
        ],
        compared=COMPARED,
        figures={
            title: [
                (path.parent.parent.name, path.stem, embedded(path))
                for heading_of_path, path in shown
                if heading_of_path == title
            ]
            for title, _ in shown
        },
        figures_left=len(pictures) - len(shown),
    )


@dataclass(frozen=True)
class Picture:
    """A picture within the page.

    Attributes:
        address: that holds the whole picture.
        wide: whether it needs more than a column.
        caption: what it shows.
    """

    address: str
    wide: bool = False
    caption: str = ""


def embedded(path: Path) -> Picture:
    """The picture of a PNG, a few times smaller."""
    buffer = io.BytesIO()
    try:
        with Image.open(path) as picture:
            wide = picture.width > _WIDE * picture.height
            caption = str(picture.info.get("Description", ""))
            picture.convert("RGB").save(buffer, "WEBP", quality=80)
    except OSError:  # damaged; its caption shows which
        return Picture("data:,")
    content = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{content}", wide, caption)


def figures_of(runs: Sequence[Run], folder: Path) -> list[tuple[str, Path]]:
    """Headings and files: comparisons first, then of the runs one kind after the other."""
    compared = [("Comparisons", path) for path in sorted((folder / "figures").glob("*.png"))]
    of_runs = [path for run in runs for path in sorted((run.folder / "figures").glob("*.png"))]
    kinds = sorted({path.stem for path in of_runs})
    return compared + [(f"Runs: {k}", path) for k in kinds for path in of_runs if path.stem == k]
