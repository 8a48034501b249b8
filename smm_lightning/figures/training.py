"""Training losses and final accuracies of the methods."""

from collections import defaultdict
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import COLUMN, new_figure
from smm_lightning.figures.trained import Group
from smm_lightning.report.runs import Run


@figure(
    "training",
    of="group",
    weights=False,
    caption="Training loss for each epoch, and accuracies of the last epoch with one standard "
    "deviation over the seeds (as Figures 11 and 12).",
)
def training(group: Group) -> Drawn:
    """Figures 11 and 12: means over the seeds."""
    methods: dict[str, list[Run]] = defaultdict(list)
    for run in group.runs:
        methods[run.method].append(run)
    drawn = new_figure(2 * COLUMN, 2.7)
    left, right = drawn.subplots(1, 2)
    columns = ("method", "n", "train", "train std", "test", "test std")
    data: dict[str, list[Any]] = {name: [] for name in columns}
    for place, (method, runs) in enumerate(methods.items()):
        look, results = group.looks[method], [run.finished for run in runs]
        losses = _mean_losses(results)
        line = {"color": look.colour, "marker": look.marker, "label": look.label}
        left.plot(range(1, len(losses) + 1), losses, ms=3, **line)
        row: list[Any] = [method, len(results)]
        for offset, (split, hatch) in enumerate((("train", ""), ("test", "///"))):
            values = [100 * result[f"{split}/acc_last"] for result in results]
            mean, std = float(np.mean(values)), float(np.std(values, ddof=1)) if values[1:] else 0.0
            bar: dict[str, Any] = {"color": look.colour, "hatch": hatch, "edgecolor": "white"}
            right.bar(place + 0.4 * offset, mean, 0.38, yerr=std, error_kw={"lw": 0.8}, **bar)
            row += [mean, std]
        for column, value in zip(data.values(), row, strict=True):
            column.append(value)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="epoch", title="training loss")
    drawn.legend(loc="outside lower center", ncols=4)
    labels = [group.looks[method].label for method in methods]
    right.set_xticks(np.arange(len(labels)) + 0.2, labels, rotation=30, ha="right", fontsize=6)
    right.set_title("accuracy (%): training, and test (hatched)")
    drawn.suptitle(group.title, fontsize=8)
    return Drawn(drawn, data)


def _mean_losses(results: list[dict[str, Any]]) -> Any:
    """Over the runs (epochs,), as long as all of them were trained."""
    length = min(len(result["history"]) for result in results)
    losses = [[row["train/loss"] for row in one["history"][:length]] for one in results]
    return np.mean(losses, axis=0)
