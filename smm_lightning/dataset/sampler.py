"""The order of the samples, derived from (seed, epoch) instead of stored."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch.utils.data import SequentialSampler


class BatchIndices(NamedTuple):
    """A batch to read: positions of the samples, and what the training step must know of them.

    These facts travel with the batch, because workers read ahead.

    Attributes:
        epoch: that the samples are drawn for.
        positions: of the samples of this rank.
        loss_weight: samples of this rank, over the mean of all ranks: 1 but in an uneven batch.
    """

    epoch: int
    positions: list[int]
    loss_weight: float


# A SequentialSampler only so that Lightning leaves it as it is under overfit_batches.
class DeterministicBatchSampler(SequentialSampler):
    """Batches of positions in an order that is a pure function of (seed, epoch).

    ``batch_size`` counts the samples of a step over all ranks: rank r takes every world-th sample
    of the batch, beginning with r. So the steps hold the same samples for any number of ranks.

    Args:
        length: number of samples.
        batch_size: samples a step, all ranks together.
        seed: of the run.
        shuffled: ``False`` keeps the natural order (evaluation, counting).
        progress: answers the current epoch and the number of its steps that are done already (a
            run may go on in the middle of an epoch).
        rank: of this process.
        world: number of processes.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        *,
        shuffled: bool = False,
        progress: Callable[[], tuple[int, int]] = lambda: (0, 0),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffled = shuffled
        self.progress = progress
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        # Training steps are collective: a last batch with fewer samples than ranks is left out.
        full, rest = divmod(self.length, self.batch_size)
        return full + (rest >= (self.world if self.shuffled else 1))

    def __iter__(self) -> Iterator[BatchIndices]:  # type: ignore[override]
        epoch, done = self.progress()
        order = self._order(epoch)
        # A run that goes on in the middle of an epoch leaves out what it has seen.
        for batch in order.split(self.batch_size)[done : len(self)]:
            positions = batch[self.rank :: self.world].tolist()
            if positions:  # the last batch of an evaluation may be too small for all ranks
                yield BatchIndices(epoch, positions, len(positions) * self.world / len(batch))

    def _order(self, epoch: int) -> torch.Tensor:
        if not self.shuffled:
            return torch.arange(self.length)
        # Seeds of neighbouring runs and epochs must not meet: 1,000,003 is prime and > any epoch.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.length, generator=generator)
