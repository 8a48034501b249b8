"""One look: readable at the width of a column, safe for the colour-blind, the data kept beside."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from smm_lightning.files import write_atomically

COLUMN = 3.4  # inches, of a two-column paper
# Okabe and Ito's colours, which people with any colour vision tell apart; a method keeps its own.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
_METHODS = ("smm", "pad", "narrow", "medium", "full", "only_mask", "smm_single_channel", "none")
_MARKERS = "osD^vP*X"
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


def colour(method: str) -> str:
    """Of a method; unknown ones are grey."""
    return _COLOURS[_METHODS.index(method)] if method in _METHODS else "#999999"


def marker(method: str) -> str:
    """Of a method, so that print in black and white tells them apart as well."""
    return _MARKERS[_METHODS.index(method)] if method in _METHODS else "o"


def look_of_class(number: int) -> dict[str, str]:
    """Colour and marker of a class: 64 that differ."""
    turn, place = divmod(number, len(_COLOURS))
    return {"color": _COLOURS[place], "marker": _MARKERS[turn % len(_MARKERS)]}


def save(figure: Figure, path: Path, data: Mapping[str, Any]) -> Path:
    """Write ``<path>.png``, ``<path>.pdf`` and the data: a CSV of columns, or ``.npz`` of arrays.

    Args:
        figure: to write.
        path: without suffix.
        data: what the figure shows, by name.

    Returns:
        The PNG.

    Raises:
        OSError: If the folder cannot be written.
    """
    for suffix in (".png", ".pdf"):
        buffer = io.BytesIO()
        figure.savefig(
            buffer, format=suffix[1:], metadata={"CreationDate": None} if suffix == ".pdf" else None
        )
        write_atomically(path.with_name(path.name + suffix), buffer.getvalue())
    columns = {name: np.asarray(values) for name, values in data.items()}
    if all(values.ndim == 1 for values in columns.values()):
        write_columns(path.with_name(path.name + ".csv"), columns)
    else:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **columns)
        write_atomically(path.with_name(path.name + ".npz"), buffer.getvalue())
    return path.with_name(path.name + ".png")


def write_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """A CSV of columns of equal length.

    Raises:
        OSError: If the folder cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomically(path, text.getvalue().encode())
