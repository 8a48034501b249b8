"""Training losses and final accuracies of the methods."""

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import COLUMN, new_figure, write_title
from smm_lightning.figures.trained import Group


@figure(
    "training",
    of="group",
    needs="history",
    caption="Training loss and training accuracy for each epoch, and accuracies of the last epoch "
    "with one standard deviation over the seeds (as Figures 11 and 12).",
)
def training(group: Group) -> Drawn:
    """Figures 11 and 12: means over the seeds."""
    series = group.series()
    drawn = new_figure(2 * COLUMN, 2.4)
    left, middle, right = drawn.subplots(1, 3)
    columns = ("method", "n", "train", "train std", "test", "test std")
    data: dict[str, list[Any]] = {name: [] for name in columns}
    for place, one in enumerate(series):
        results = [run.finished for run in one.runs]
        line = {"color": one.look.colour, "marker": one.look.marker, "ms": 3}
        losses, accuracies = _means(results, "train/loss"), 100 * _means(results, "train/acc")
        left.plot(range(1, len(losses) + 1), losses, label=one.look.label, **line)
        middle.plot(range(1, len(accuracies) + 1), accuracies, **line)
        row: list[Any] = [one.name, len(results)]
        for offset, (split, hatch) in enumerate((("train", ""), ("test", "///"))):
            values = [100 * result[f"{split}/acc_last"] for result in results]
            mean, std = float(np.mean(values)), float(np.std(values, ddof=1)) if values[1:] else 0.0
            bar: dict[str, Any] = {"color": one.look.colour, "hatch": hatch, "edgecolor": "white"}
            right.bar(place + 0.4 * offset, mean, 0.38, yerr=std, error_kw={"lw": 0.8}, **bar)
            row += [mean, std]
        for column, value in zip(data.values(), row, strict=True):
            column.append(value)
    for axis, title in ((left, "training loss"), (middle, "training accuracy (%)")):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set(xlabel="epoch", title=title)
    drawn.legend(loc="outside lower center", ncols=4)
    labels = [one.look.label for one in series]
    right.set_xticks(np.arange(len(labels)) + 0.2, labels, rotation=30, ha="right", fontsize=6)
    right.set_title("accuracy (%), test hatched")
    write_title(drawn, group.title, 8)
    return Drawn(drawn, data)


def _means(results: list[dict[str, Any]], name: str) -> Any:
    """Over the runs (epochs,), as long as all of them were trained."""
    length = min(len(result["history"]) for result in results)
    values = [[row[name] for row in one["history"][:length]] for one in results]
    return np.mean(values, axis=0)
