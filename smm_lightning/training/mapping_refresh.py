"""When the label mapping is taken anew during training, and from which images."""

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from smm_lightning.classifier import ReprogrammedClassifier
from smm_lightning.mapping import OverRanks


class MappingRefresh:
    """Follows ``refresh`` of the mapping, and keeps what a checkpoint needs in mid-epoch.

    Args:
        classifier: whose mapping it is.
    """

    def __init__(self, classifier: ReprogrammedClassifier) -> None:
        self.classifier = classifier
        self.log: dict[str, float] = {}  # of this epoch: classes that changed, passes, seconds

    def begin_epoch(
        self,
        epoch: int,
        batches: Callable[[], Iterable[tuple[Tensor, Tensor]]],
        over_ranks: OverRanks,
        precision: AbstractContextManager[Any],
    ) -> None:
        """Take the mapping from the last epoch's steps or from a pass of its own, if it is due.

        Args:
            epoch: from 0.
            batches: gives the epoch's training images and targets of this rank.
            over_ranks: to the sum over all ranks.
            precision: that the network computes in.
        """
        classifier, start = self.classifier, time.perf_counter()
        mapping, changed, passes = classifier.label_mapping, 0.0, 0.0
        if mapping.is_due(epoch) or not classifier.fitted:
            if self._seen(over_ranks):
                changed = mapping.refit(over_ranks)
            else:
                with precision:
                    changed, passes = classifier.refit_unchecked(batches(), over_ranks), 1.0
        # Begun now, so that the steps of this epoch are counted for the next one.
        if mapping.refresh == "running" and mapping.is_due(epoch + 1):
            mapping.reset()
        seconds = time.perf_counter() - start
        self.log = {"mapping/changed": changed, "mapping/passes": passes, "time/mapping_s": seconds}

    def observe(self, source: Tensor, targets: Tensor) -> None:
        """Let the mapping see a training step, if it counts these."""
        if self.classifier.label_mapping.statistics is not None:
            with torch.no_grad():
                self.classifier.label_mapping.observe(source, targets)

    def _seen(self, over_ranks: OverRanks) -> bool:
        """Whether the steps of the last epoch were counted, on any rank."""
        mapping = self.classifier.label_mapping
        if mapping.refresh != "running" or mapping.statistics is None:
            return False
        return bool(over_ranks(mapping.statistics).any())

    def state(self, over_ranks: OverRanks) -> dict[str, Any]:
        """For a checkpoint: most cells are zero, and a dense table would double its size."""
        statistics = self.classifier.label_mapping.statistics
        if statistics is None:
            return {"log": self.log}
        summed = over_ranks(statistics).flatten()
        cells = summed.nonzero().squeeze(1)
        return {"log": self.log, "cells": cells, "statistics": summed[cells]}

    def load(self, state: dict[str, Any], *, leads: bool) -> None:
        """Take what :meth:`state` gave.

        Args:
            state: summed over all ranks.
            leads: whether this is the rank that goes on with it; the others begin with zero.

        Raises:
            ValueError: If it is no such state.
        """
        self.log = {str(name): float(value) for name, value in state["log"].items()}
        mapping = self.classifier.label_mapping
        if "cells" not in state:
            return
        mapping.reset()
        if leads and mapping.statistics is not None:
            device = mapping.statistics.device
            cells = state["cells"].to(device)
            mapping.statistics.view(-1)[cells] = state["statistics"].to(device)
