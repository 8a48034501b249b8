"""One look: readable at the width of a column, safe for the colour-blind, the data kept beside."""

import csv
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smm_lightning.figures.registry import Drawn
from smm_lightning.files import write_atomically
from smm_lightning.run.look import COLOURS, MARKERS
from smm_lightning.text import csv_cell

COLUMN = 3.4  # inches, of a two-column paper
_MOST_NAMES, _MOST_NUMBERS = 30, 12  # of rows, that can be read in a heat map
_LETTER = 0.55  # mean width of a letter, of its size
# Where a name may go on in a new line.
_BREAK = re.compile(r"(?<=[_\W])(?=\w)|(?<=[^\W_A-Z])(?=[A-Z])")
_LOOK = {
    "font.size": 8,
    "axes.titlesize": 8,
    "legend.fontsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "text.parse_math": False,  # names of classes may hold dollars
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 200,
}


def new_figure(width: float = COLUMN, height: float = 2.4) -> Figure:
    """An empty figure that needs no display.

    Args:
        width: in inches.
        height: in inches.
    """
    mpl.rcParams.update(_LOOK)
    return Figure(figsize=(width, height), layout="constrained")


def write_title(figure: Figure, title: str, size: int = 7) -> None:
    """A title over the whole figure, because names of rows may be wider than its axes; never cut.

    Args:
        figure: to write over.
        title: broken into as many lines as its width asks for.
        size: of the letters, in points.
    """
    width = int(72 * figure.get_figwidth() / (_LETTER * size))
    lines = [textwrap.fill(line, width) for line in title.splitlines()]
    figure.suptitle("\n".join(lines), fontsize=size)


def in_lines(name: str, letters: int = 14) -> str:
    """A class name in lines of that length, broken where words end; a longer word is cut."""
    lines = [""]
    for word in _BREAK.split(name):
        if lines[-1] and len(lines[-1] + word.rstrip()) > letters:
            lines.append("")
        lines[-1] += word
    return "\n".join(
        line if len(line) <= letters else f"{line[: letters - 1]}…"
        for line in (line.strip() for line in lines)
    )


def look_of_class(number: int) -> dict[str, Any]:
    """Colour and marker of a class: 64 that differ."""
    turn, place = divmod(number, len(COLOURS))
    return {"color": COLOURS[place], "marker": MARKERS[turn % len(MARKERS)]}


def without_ticks(axis: Axes) -> None:
    """Leave a picture bare."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)


def heat_map(
    percentages: np.ndarray[Any, Any], rows: list[str], columns: list[str], title: str, xlabel: str
) -> Figure:
    """Percentages in [0, 100], with names where they fit and numbers where few.

    Args:
        percentages: (rows, columns).
        rows: names of the rows.
        columns: names of the columns.
        title: over it.
        xlabel: what the columns are.
    """
    figure = new_figure(COLUMN, 3.2)
    axis = figure.subplots()
    picture = axis.imshow(percentages, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axis.grid(visible=False)
    if len(rows) <= _MOST_NAMES:
        axis.set_yticks(range(len(rows)), rows, fontsize=6)
        axis.set_xticks(range(len(columns)), columns, fontsize=6, rotation=60, ha="right")
    if len(rows) <= _MOST_NUMBERS:
        for (row, column), percentage in np.ndenumerate(percentages):
            # On the dark half of the colour map, letters are white.
            look: dict[str, Any] = {"fontsize": 5, "color": "white" if percentage < 55 else "black"}  # noqa: PLR2004
            axis.text(column, row, f"{percentage:.0f}", ha="center", va="center", **look)
    axis.set(xlabel=xlabel, ylabel="class")
    write_title(figure, title)
    figure.colorbar(picture, ax=axis, shrink=0.8)
    return figure


def save(drawn: Drawn, path: Path, caption: str = "", runs: Sequence[str] = ()) -> Path:
    """Write ``<path>.png``, ``<path>.pdf`` and the data: a CSV of columns, or ``.npz`` of arrays.

    Args:
        drawn: to write.
        path: without suffix.
        caption: for the page of a report, which finds it in the PNG.
        runs: keys of the runs that it was drawn for, written beside the data.

    Returns:
        The PNG.

    Raises:
        OSError: If the folder cannot be written.
    """
    for suffix, metadata in ((".png", {"Description": caption}), (".pdf", {"CreationDate": None})):
        buffer = io.BytesIO()
        drawn.figure.savefig(buffer, format=suffix[1:], metadata=metadata)
        write_atomically(path.with_name(path.name + suffix), buffer.getvalue())
    runs = runs if drawn.runs is None else drawn.runs
    columns = {name: np.asarray(values) for name, values in drawn.data.items()}
    if all(values.ndim == 1 for values in columns.values()):
        _write_columns(path.with_name(path.name + ".csv"), columns, runs)
    else:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, runs=np.array(runs), **columns)
        write_atomically(path.with_name(path.name + ".npz"), buffer.getvalue())
    for ending, table in drawn.tables.items():
        _write_columns(path.with_name(f"{path.name}-{ending}.csv"), table, runs)
    return path.with_name(path.name + ".png")


def _write_columns(path: Path, columns: Mapping[str, Any], runs: Sequence[str]) -> None:
    """A CSV of columns of equal length, below a comment with the keys of the runs."""
    text = io.StringIO()
    text.write(f"# runs: {' '.join(runs)}\n" if runs else "")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, columns))
    writer.writerows(map(csv_cell, row) for row in zip(*columns.values(), strict=True))
    write_atomically(path, text.getvalue().encode())
