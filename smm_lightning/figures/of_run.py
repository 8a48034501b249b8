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


def curves(run: Run) -> tuple[Figure, Data]:
    """Figure 11: training loss, and accuracies, for each epoch."""
    assert run.result is not None
    history = run.result["history"]
    epochs = [int(row["epoch"]) + 1 for row in history]
    data: Data = {"epoch": epochs}
    for name in ("train/loss", "train/acc", "val/acc", "test/acc"):
        values = [row.get(name, np.nan) for row in history]
        if not np.isnan(values).all():
            data[name] = values
    figure = new_figure(COLUMN, 1.9)
    left, right = figure.subplots(1, 2)
    left.plot(epochs, data["train/loss"], color="#0072B2")
    left.set(xlabel="epoch", title="training loss")
    looks = (
        ("train/acc", "-", "#0072B2"),
        ("val/acc", "-.", "#009E73"),
        ("test/acc", "o--", "#D55E00"),
    )
    for name, style, colour in looks:
        if name in data:
            tested = ~np.isnan(data[name])
            percent = 100 * np.asarray(data[name])[tested]
            right.plot(
                np.asarray(epochs)[tested], percent, style, ms=3, color=colour, label=name[:-4]
            )
    right.set(xlabel="epoch", title="accuracy (%)")
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend()
    figure.suptitle(f"{run.value('method.name')}, run {run.result['run_key']}", fontsize=7)
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
    title = f"Images seen as each source (%), run {trained.result['run_key']}"
    figure = heat_map(100 * shares.numpy(), names, sources_named, title, "source class")
    return figure, {"names": np.array(names), "counts": counts.numpy()}


def confusion(trained: Trained) -> tuple[Figure, Data]:
    """Test images of each class by the class that is predicted, in percent of the row."""
    answers = trained.answers("test", np.arange(len(trained.labels("test"))))
    classes = len(trained.class_names)
    cells = answers.targets * classes + answers.logits.argmax(1)
    counts = torch.bincount(cells, minlength=classes**2).view(classes, classes)
    shares = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
    title = f"{trained.method}: test images (%), run {trained.result['run_key']}"
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
