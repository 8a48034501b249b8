"""Accuracy against the size of the patch that shares a mask value."""

from collections import defaultdict
from typing import Any

import numpy as np

from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import new_figure
from smm_lightning.figures.trained import Group


@figure(
    "patch_size",
    of="group",
    needs="accuracies",
    caption="Test accuracy against the patch size, shared masks as lines; bands are one standard "
    "deviation over the seeds (as Figure 4).",
)
def patch_size(group: Group) -> Drawn | None:
    """Figure 4; nothing where there is one patch size only."""
    sizes_of = {run.value("method.patch_size") for run in group.runs}
    ticks = sorted(size for size in sizes_of if size is not None)
    if len(ticks) <= 1:
        return None
    drawn = new_figure()
    axis = drawn.subplots()
    data: dict[str, list[Any]] = {n: [] for n in ("method", "patch size", "mean", "std", "n")}
    for one in group.series("method.patch_size"):
        look = one.look
        values: dict[Any, list[float]] = defaultdict(list)
        for run in one.runs:
            accuracy = 100 * run.finished["test/acc_last"]
            values[run.value("method.patch_size")].append(accuracy)
        sizes = sorted(size for size in values if size is not None)
        members = [values[size] for size in sizes] or [values[None]]
        means = np.array([np.mean(seeds) for seeds in members])
        stds = np.array([np.std(seeds, ddof=1) if seeds[1:] else 0 for seeds in members])
        if sizes:
            axis.plot(sizes, means, marker=look.marker, ms=4, color=look.colour, label=look.label)
            axis.fill_between(sizes, means - stds, means + stds, color=look.colour, alpha=0.2, lw=0)
        else:
            axis.axhline(means[0], ls="--", lw=1, color=look.colour, label=look.label)
            band = means[0] - stds[0], means[0] + stds[0]
            axis.axhspan(*band, color=look.colour, alpha=0.1, lw=0)
        for size, mean, std, seeds in zip(sizes or [None], means, stds, members, strict=True):
            row = (one.name, size, mean, std, len(seeds))
            for column, value in zip(data.values(), row, strict=True):
                column.append(value)
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set(xlabel="patch size", ylabel="test accuracy (%)", title=group.title)
    drawn.legend(loc="outside lower center", ncols=4)
    return Drawn(drawn, data)
