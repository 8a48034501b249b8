"""Figures of one run: its curves, its label mapping, its confusions."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smm_lightning.figures.style import COLUMN, new_figure
from smm_lightning.figures.trained import Trained
from smm_lightning.report.runs import Run

Data = dict[str, Any]
_MOST_NAMES = 30  # labels that fit beside a heat map
_LOSS, _PROMPT = "training loss", "prompt"
_BLUE, _GREEN, _ORANGE = "#0072B2", "#009E73", "#D55E00"
# Titles, lines (name in the history: label, style, colour), and the scale of what is shown.
_PANELS = (
    (_LOSS, {"train/loss": ("training", "-", _BLUE)}, 1),
    (
        "accuracy (%)",
        {
            "train/acc": ("train", "-", _BLUE),
            "val/acc": ("val", "s-.", _GREEN),
            "test/acc": ("test", "o--", _ORANGE),
        },
        100,
    ),
    ("changed source classes", {"mapping/changed": ("", ".-", _BLUE)}, 1),
    (
        _PROMPT,
        {
            "prompt/mask": ("mask, mean", "-", _BLUE),
            "prompt/distance": ("added, RMS", "o--", _ORANGE),
        },
        1,
    ),
)


def curves(run: Run) -> tuple[Figure, Data]:
    """Figure 11, training loss and accuracies for each epoch; and what prompt and mapping did."""
    assert run.result is not None
    history = run.result["history"]
    epochs = [int(row["epoch"]) + 1 for row in history]
    panels = [
        panel for panel in _PANELS if any(name in row for row in history for name in panel[1])
    ]
    data: Data = {"epoch": epochs}
    figure = new_figure(COLUMN, 1.9 * -(-len(panels) // 2))
    axes = figure.subplots(-(-len(panels) // 2), 2, squeeze=False).flatten()
    for axis, (title, lines, scale) in zip(axes, panels, strict=False):
        for name, (label, style, colour) in lines.items():
            values = np.array([row.get(name, np.nan) for row in history])
            there = ~np.isnan(values)
            if there.any():
                data[name] = values.tolist()
                shown = np.asarray(epochs)[there], scale * values[there]
                axis.plot(*shown, style, ms=3, color=colour, label=label)
        axis.set(xlabel="epoch", title=title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if title == _LOSS and (classes := run.result.get("class_names")):
            axis.axhline(np.log(len(classes)), color="black", lw=0.8, ls=":", label="guessing")
        if title == _PROMPT:
            axis.set_yscale("log")
        if len(axis.lines) > 1:
            axis.legend()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(run.title, fontsize=7)
    return figure, data


def mapping(trained: Trained) -> tuple[Figure, Data]:
    """The label mapping: how often each chosen source class is predicted for each target class."""
    rows = trained.result["mapping"]
    heaviest = [row["sources"][0] for row in rows]
    sources = [source["index"] for source in heaviest]
    predicted = trained.counts("train")
    counts = predicted[sources].T  # target classes by the sources that were chosen
    shares = counts / predicted.sum(0).clamp(min=1)[:, None]
    sources_named = [_short(source["name"]) for source in heaviest]
    names = [
        f"{row['target']} \N{LEFTWARDS ARROW} {name}"
        for row, name in zip(rows, sources_named, strict=True)
    ]
    title = f"Images seen as each source (%): {trained.run.title}"
    figure = heat_map(100 * shares.numpy(), names, sources_named, title, "source class")
    return figure, {"names": np.array(names), "counts": counts.numpy()}


def confusion(trained: Trained) -> tuple[Figure, Data]:
    """Test images of each class by the class that is predicted, in percent of the row."""
    answers = trained.answers("test", np.arange(len(trained.labels("test"))))
    classes = len(trained.class_names)
    cells = answers.targets * classes + answers.logits.argmax(1)
    counts = torch.bincount(cells, minlength=classes**2).view(classes, classes)
    shares = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
    title = f"Test images (%): {trained.run.title}"
    names = trained.class_names
    figure = heat_map(shares.numpy(), names, names, title, "predicted class")
    return figure, {"names": np.array(names), "counts": counts.numpy()}


def heat_map(
    shares: np.ndarray[Any, Any], rows: list[str], columns: list[str], title: str, xlabel: str
) -> Figure:
    """Percentages in [0, 100], with names where they fit and numbers where few.

    Args:
        shares: (rows, columns).
        rows: names of the rows.
        columns: names of the columns.
        title: over it.
        xlabel: what the columns are.
    """
    few = len(rows) <= _MOST_NAMES
    figure = new_figure(COLUMN, 3.2)
    axis = figure.subplots()
    picture = axis.imshow(shares, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axis.grid(visible=False)
    if few:
        axis.set_yticks(range(len(rows)), rows, fontsize=6)
        axis.set_xticks(range(len(columns)), columns, fontsize=6, rotation=60, ha="right")
    if len(rows) <= 12:  # noqa: PLR2004 - more numbers cannot be read at this width
        for (row, column), share in np.ndenumerate(shares):
            dark = share < 55  # noqa: PLR2004 - of the colour map
            axis.text(
                column,
                row,
                f"{share:.0f}",
                ha="center",
                va="center",
                fontsize=5,
                color="white" if dark else "black",
            )
    axis.set(xlabel=xlabel, ylabel="class")
    axis.set_title(title, fontsize=7)
    figure.colorbar(picture, ax=axis, shrink=0.8)
    return figure


def _short(name: str) -> str:
    """The first synonym of an ImageNet class."""
    return name.split(",", maxsplit=1)[0]
