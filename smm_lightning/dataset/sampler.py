"""The order of the samples, derived from (seed, epoch) instead of stored."""

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import Sampler


class DerivedBatchSampler(Sampler[list[int]]):
    """Batches of positions in an order that is a pure function of (seed, epoch).

    ``batch_size`` counts the samples of a step over all ranks: rank r takes every world-th sample
    of the batch, beginning with r. So the steps hold the same samples for any number of ranks.

    Args:
        length: number of samples.
        batch_size: samples a step, all ranks together.
        seed: of the run.
        epoch: answers the current epoch; ``None`` keeps the natural order (evaluation).
        rank: of this process.
        world: number of processes.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        epoch: Callable[[], int] | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        # Training steps are collective: a last batch with fewer samples than ranks is left out.
        full, rest = divmod(self.length, self.batch_size)
        return full + (rest >= (self.world if self.epoch else 1))

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.arange(self.length) if self.epoch is None else self._shuffled(self.epoch())
        for batch in order.split(self.batch_size)[: len(self)]:
            own = batch[self.rank :: self.world].tolist()
            if own:
                yield own

    def _shuffled(self, epoch: int) -> torch.Tensor:
        # Seeds of neighbouring runs and epochs must not meet: 1,000,003 is prime and > any epoch.
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return torch.randperm(self.length, generator=generator)
