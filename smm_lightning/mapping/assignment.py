"""From counts to a mapping: pure functions, no state."""

import numpy as np
import torch
from torch import Tensor

from smm_lightning.errors import problem


def add_pairs(counts: Tensor, predicted: Tensor, targets: Tensor) -> None:
    """Add to d[s, t] the samples of target class t that were predicted as source class s.

    Args:
        counts: (S, T) int64, on the device of the others; changed in place.
        predicted: (B,) source classes.
        targets: (B,) target classes.
    """
    cells = predicted * counts.shape[1] + targets
    # torch.bincount would make a GPU wait for the host, which wants to know the largest cell.
    counts.view(-1).index_add_(0, cells, torch.ones_like(cells))


def greedy_one_to_one(counts: Tensor) -> Tensor:
    """The largest cell maps its s to its t; strike out both; repeat until every t has a source.

    Ties go to the first cell in row-major order (s first). Once only zeros are left, this gives the
    remaining targets, in order, the lowest sources still free, also to a class without samples.

    Source: ILM-VP and SMM ``predictive_distribution_based_multi_label_mapping`` with one source per
    target, here in one pass over the sorted non-zero cells.

    Args:
        counts: (S, T) non-negative integers, T <= S.

    Returns:
        (T,) int64 on the CPU: the source class of every target class, all different.

    Raises:
        UserError: If there are more target classes than source classes.
    """
    source_classes, classes = counts.shape
    require_enough_sources(source_classes, classes)
    table = counts.cpu().numpy()
    # Most cells are zero: a table of 1,000 x 397 has at most one non-zero cell for each image.
    sources, targets = np.nonzero(table)
    order = np.lexsort((targets, sources, -table[sources, targets]))
    chosen: dict[int, int] = {}
    taken: set[int] = set()
    for source, target in zip(sources[order].tolist(), targets[order].tolist(), strict=True):
        if target not in chosen and source not in taken:
            chosen[target] = source
            taken.add(source)
    free = (source for source in range(source_classes) if source not in taken)
    return torch.tensor(
        [chosen[target] if target in chosen else next(free) for target in range(classes)]
    )


def require_enough_sources(source_classes: int, classes: int) -> None:
    """A one-to-one mapping gives every target class a source class of its own.

    Raises:
        UserError: If there are fewer source classes than target classes.
    """
    if classes > source_classes:
        raise problem(
            "mapping",
            f"{classes} target classes cannot each have one of {source_classes} source classes",
            hint="Use a backbone with more classes, or a dataset with fewer.",
        )
