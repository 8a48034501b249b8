"""Accuracy and mean loss of each split, summed up on the device without waiting for it."""

from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy
from typing_extensions import override

from smm_lightning.device import at_least_float32

SPLITS = ("train", "test", "val", "best")  # the last: test images under the best weights


class MeanLoss(MeanMetric):
    """A mean that is summed up in float32 where the network is in 16 bits."""

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Self:
        super()._apply(at_least_float32(fn), exclude_state)
        return self


class SplitMetrics(nn.Module):
    """``acc`` and ``loss`` of the splits.

    Args:
        classes: T.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        # Their checks of values would make the host wait for a GPU in every step.
        accuracy: dict[str, Any] = {"average": "micro", "validate_args": False}
        self.acc = nn.ModuleDict(
            {f"of_{s}": MulticlassAccuracy(classes, **accuracy) for s in SPLITS}
        )
        self.loss = nn.ModuleDict({f"of_{s}": MeanLoss(nan_strategy="disable") for s in SPLITS})

    def of(self, split: str) -> dict[str, Metric]:
        """The metrics of a split, by name."""
        metrics = {"acc": self.acc[f"of_{split}"], "loss": self.loss[f"of_{split}"]}
        return cast("dict[str, Metric]", metrics)

    def update(self, split: str, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Add a batch.

        Args:
            split: its name.
            logits: (B, T).
            targets: (B,).
            loss: their mean loss.
        """
        metrics = self.of(split)
        metrics["acc"].update(logits.detach(), targets)
        # With its check switched off, torchmetrics 1.9 forgets the weight that one may give it.
        metrics["loss"].update(loss.detach().expand(len(targets)))

    def reset(self, split: str) -> None:
        """Begin anew."""
        for metric in self.of(split).values():
            metric.reset()

    def sums(self, split: str, over_ranks: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """What was summed up since the last reset, over all ranks, for a checkpoint."""
        # Summed now, because a run may go on with another number of ranks.
        return {
            name: {
                state: over_ranks(cast("Tensor", value).detach())
                for state, value in metric.metric_state.items()  # ours hold no lists
            }
            for name, metric in self.of(split).items()
        }

    def load_sums(self, split: str, sums: dict[str, Any], *, leads: bool) -> None:
        """Take what :meth:`sums` gave.

        Args:
            split: its name.
            sums: over all ranks.
            leads: whether this is the rank that goes on with them; the others begin with zero.

        Raises:
            ValueError: If they are no such sums.
        """
        for name, metric in self.of(split).items():
            for state, current in dict(metric.metric_state).items():
                value = sums[name][state]
                assert isinstance(current, Tensor)  # ours hold no lists
                if value.shape != current.shape:
                    raise ValueError(f"the sums of {name} have another shape")
                setattr(metric, state, value.to(current) if leads else torch.zeros_like(current))
