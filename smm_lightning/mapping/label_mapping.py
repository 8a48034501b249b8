"""f_out: from what the frozen network answers to the logits of the target classes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from smm_lightning.device import AtLeastFloat32
from smm_lightning.ranges import Reads

Refresh = Literal["never", "once", "epoch", "running"]
OverRanks = Callable[[Tensor], Tensor]
_MOST_SOURCES = 5  # in a row of the table


class LabelMapping(AtLeastFloat32, ABC):
    """Contract of a label mapping.

    What it has learned is in ``state_dict()``, what it is counting is not: ``statistics`` are
    int64, so that no order of the images, no number of ranks and no interruption changes a bit, and
    they are no buffer, because DDP overwrites buffers by those of rank 0 at every step.

    Args:
        refresh: when statistics are gathered and :meth:`refit` is called: ``never``, ``once``
            before the first epoch, at the start of every ``epoch``, or ``running``: before the
            first epoch, and then from the answers that training has seen anyway.
        refit_until: the epoch, from 0, from which on the mapping stays; ``None``: it never does.
            With 1, the iterative mapping is the frequent one.
        temperature: that the classifier divides target logits by; ``auto``: the best one for the
            first count, see :func:`best_temperature`.

    Attributes:
        reads: what :meth:`forward` takes: source ``logits`` (B, S), or ``features`` (B, D), which
            the network's last layer would take.
        statistics: gathered so far; ``None`` outside of a count.
    """

    reads: ClassVar[Reads] = "logits"

    def __init__(
        self,
        refresh: Refresh = "never",
        refit_until: int | None = None,
        temperature: float | Literal["auto"] = 1.0,
    ) -> None:
        super().__init__()
        self.refresh: Refresh = refresh
        self.refit_until = refit_until
        self.temperature = temperature
        self.statistics: Tensor | None = None

    @property
    def fitted(self) -> bool:
        """Whether it can be used; one that is counted cannot before its first fit."""
        return True

    def is_due(self, epoch: int) -> bool:
        """Whether the mapping is taken anew before this epoch.

        Args:
            epoch: from 0.
        """
        last = 1 if self.refresh == "once" else self.refit_until
        return self.refresh != "never" and (last is None or epoch < last)

    @abstractmethod
    def forward(self, source: Tensor) -> Tensor:
        """(B, S) or (B, D) to target logits (B, T), in float32 or better."""

    def reset(self) -> None:
        """Begin a count, with statistics of zero, on every rank and also if it has no image."""

    def observe(self, source: Tensor, targets: Tensor) -> None:
        """Add a batch to the statistics.

        Args:
            source: as for :meth:`forward`.
            targets: (B,) class numbers.
        """

    def fit(self, statistics: Tensor) -> None:
        """Take the mapping from the statistics of all images."""

    def dense(self) -> Tensor | None:
        """Weights (S, T) of the source classes; ``None`` for a mapping of features."""
        return None

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What is trained, by the names that the optimiser's settings use."""
        return {"mapping": list(self.parameters())}

    def refit(self, over_ranks: OverRanks = lambda statistics: statistics) -> float:
        """Take the mapping from the statistics, and end the count.

        Args:
            over_ranks: to the sum over all ranks of a distributed training.

        Returns:
            The sum of all weights that moved to another source class: for a one-to-one mapping the
            number of target classes that changed theirs.
        """
        if self.statistics is None:
            return 0.0
        before = self.dense()  # a copy, or it would change with the fit
        self.fit(over_ranks(self.statistics))
        self.statistics = None  # a count that is used twice would count images twice
        after = self.dense()
        if before is None or after is None:
            return 0.0
        return float((after - before).clamp_min(0).sum())

    def table(self, classes: list[str], source_classes: list[str]) -> list[dict[str, Any]]:
        """The mapping for people: a row for each target class, with its heaviest source classes.

        Args:
            classes: names of the target classes.
            source_classes: names of the source classes.

        Returns:
            ``{"target": name, "sources": [{"index": s, "name": name, "weight": w}, ...]}``.
        """
        weights = self.dense()
        if weights is None:
            return [{"target": name, "sources": []} for name in classes]
        rows = []
        for name, column in zip(classes, weights.T.cpu(), strict=True):
            # A dense mapping has a thousand weights for a class; tables and dashboards show a few.
            heaviest = column.argsort(descending=True)[:_MOST_SOURCES].tolist()
            rows.append(
                {
                    "target": name,
                    "sources": [
                        {"index": s, "name": source_classes[s], "weight": column[s].item()}
                        for s in heaviest
                        if column[s] > 0
                    ],
                }
            )
        return rows


class CountedMapping(LabelMapping):
    """A mapping that is taken from counts, and cannot be used before the first one."""

    _fitted = False

    @property
    @override
    def fitted(self) -> bool:
        return self._fitted

    def require_fitted(self) -> None:
        """For :meth:`forward`.

        Raises:
            RuntimeError: If no mapping was fitted or loaded yet.
        """
        if not self._fitted:
            raise RuntimeError("label mapping used before refit() or load_state_dict()")


def in_float32(source: Tensor) -> Tensor:
    """Autocast's 16 bits widened; float64 stays."""
    return source.to(torch.promote_types(source.dtype, torch.float32))
