"""Figures that need result files only: accuracy against patch size, curves and bars of a grid."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smm_lightning.figures.style import COLUMN, colour, marker, new_figure
from smm_lightning.report.runs import Run, distinct

Data = dict[str, list[Any]]


def patch_size(runs: Sequence[Run]) -> tuple[Figure, Data]:
    """Figure 4: accuracy of SMM against its patch size, the shared masks as lines.

    Args:
        runs: finished, of one dataset; bands are one standard deviation over the seeds.
    """
    values: dict[tuple[str, Any], list[float]] = defaultdict(list)
    for run in runs:
        assert run.result is not None
        size = run.value("method.patch_size")
        values[str(run.value("method.name")), size].append(100 * run.result["test/acc_last"])
    figure = new_figure()
    axis = figure.subplots()
    data: Data = {"method": [], "patch size": [], "mean": [], "std": [], "n": []}
    for method in distinct(name for name, _ in values):
        sizes = sorted(size for name, size in values if name == method and size is not None)
        groups = [values[method, size] for size in sizes] or [values[method, None]]
        means = np.array([np.mean(group) for group in groups])
        stds = np.array([np.std(group, ddof=1) if len(group) > 1 else 0 for group in groups])
        look = {"color": colour(method), "label": method}
        if sizes:
            axis.plot(sizes, means, marker=marker(method), ms=4, **look)
            axis.fill_between(
                sizes, means - stds, means + stds, color=colour(method), alpha=0.2, lw=0
            )
        else:
            axis.axhline(means[0], ls="--", lw=1, **look)
            axis.axhspan(
                means[0] - stds[0], means[0] + stds[0], color=colour(method), alpha=0.1, lw=0
            )
        for size, mean, std, group in zip(sizes or [None], means, stds, groups, strict=True):
            row = (method, size, mean, std, len(group))
            for name, value in zip(data, row, strict=True):
                data[name].append(value)
    axis.set_xscale("log", base=2)
    ticks = sorted({size for _, size in values if size is not None})
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set(
        xlabel="patch size",
        ylabel="test accuracy (%)",
        title=f"{runs[0].value('dataset.name')}, {len(runs)} runs",
    )
    figure.legend(loc="outside lower center", ncols=4)
    return figure, data


def training(runs: Sequence[Run]) -> tuple[Figure, Data]:
    """Figures 11 and 12: training loss for each epoch, and accuracies at the end.

    Args:
        runs: finished, of one dataset; means over the seeds, bars with one standard deviation.
    """
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        assert run.result is not None
        groups[str(run.value("method.name"))].append(run.result)
    figure = new_figure(2 * COLUMN, 2.7)
    left, right = figure.subplots(1, 2)
    data: Data = {name: [] for name in ("method", "n", "train", "train std", "test", "test std")}
    for place, (method, results) in enumerate(groups.items()):
        length = min(len(result["history"]) for result in results)
        losses = np.mean(
            [[r["train/loss"] for r in x["history"][:length]] for x in results], axis=0
        )
        left.plot(
            range(1, length + 1),
            losses,
            color=colour(method),
            label=method,
            marker=marker(method),
            ms=3,
        )
        row: list[Any] = [method, len(results)]
        for offset, (split, hatch) in enumerate((("train", ""), ("test", "///"))):
            found = [100 * result[f"{split}/acc_last"] for result in results]
            std = float(np.std(found, ddof=1)) if len(found) > 1 else 0.0
            right.bar(
                place + 0.4 * offset,
                np.mean(found),
                0.38,
                yerr=std,
                color=colour(method),
                hatch=hatch,
                edgecolor="white",
                error_kw={"lw": 0.8},
            )
            row += [float(np.mean(found)), std]
        for name, value in zip(data, row, strict=True):
            data[name].append(value)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set(xlabel="epoch", title="training loss")
    figure.legend(loc="outside lower center", ncols=4)
    right.set_xticks(
        [0.2 + place for place in range(len(groups))],
        list(groups),
        rotation=30,
        ha="right",
        fontsize=6,
    )
    right.set_title("accuracy (%): training, and test (hatched)")
    figure.suptitle(f"{runs[0].value('dataset.name')}, {len(runs)} runs", fontsize=8)
    return figure, data
