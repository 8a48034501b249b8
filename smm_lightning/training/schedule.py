"""How the rates of an optimiser change over the epochs (paper appendix)."""

import itertools
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from typing_extensions import override

from smm_lightning.errors import Problems, did_you_mean, one_line, problem
from smm_lightning.ranges import Count
from smm_lightning.training.optimizer import Group

Epochs = Annotated[int, Ge(0), Le(1_000_000)]


# Shares of all epochs at which the rates decay.
MILESTONES = {
    "published": (0.5, 0.72),  # SMM instancewise_vp.py: int(0.5 E), int(0.72 E)
    "paper": (0.5, 0.725),  # the text: epochs 100 and 145 of 200
    "short": (0.6, 0.8),  # ours, for a handful of epochs: more of them at the full rate
}


class Schedule(ABC):
    """What rates are multiplied with, as a pure function of the epoch: resumed runs need no state.

    Args:
        warmup_epochs: in which rates rise in a line; the first epoch has 1 / (n + 1) of them.
    """

    def __init__(self, warmup_epochs: Epochs = 0) -> None:
        self.warmup_epochs = warmup_epochs

    def build(self, optimizer: Optimizer, lr_decays: Sequence[float]) -> LambdaLR:
        """The schedule of an optimiser, to be stepped once an epoch.

        Args:
            optimizer: to follow it.
            lr_decays: of its parameter groups.
        """
        return LambdaLR(optimizer, [partial(self._warmed, lr_decay) for lr_decay in lr_decays])

    @abstractmethod
    def factor(self, lr_decay: float, epoch: int) -> float:
        """Of a parameter group's initial rate in an epoch, from 0."""

    def _warmed(self, lr_decay: float, epoch: int) -> float:
        return min(1.0, (epoch + 1) / (self.warmup_epochs + 1)) * self.factor(lr_decay, epoch)


class Constant(Schedule):
    """Rates stay what they are."""

    @override
    def factor(self, lr_decay: float, epoch: int) -> float:
        return 1.0


class Milestones(Schedule):
    """Each group's rate falls by its ``lr_decay`` at every milestone.

    Args:
        epochs: of the training.
        milestones: a key of :data:`MILESTONES`, or epochs.
        warmup_epochs: see :class:`Schedule`.

    Raises:
        UserError: If the epochs do not increase within the training.
    """

    def __init__(
        self,
        epochs: Count,
        milestones: Literal["paper", "published", "short"] | Sequence[int],
        warmup_epochs: Epochs = 0,
    ) -> None:
        super().__init__(warmup_epochs)
        self.milestones = resolve_milestones(milestones, epochs)

    @override
    def factor(self, lr_decay: float, epoch: int) -> float:
        return lr_decay ** bisect_right(self.milestones, epoch)


class Cosine(Schedule):
    """Rates fall along half a cosine, towards 0 after the last epoch (Loshchilov and Hutter, 2017).

    Args:
        epochs: of the training.
        warmup_epochs: see :class:`Schedule`; the cosine begins after them.
    """

    def __init__(self, epochs: Count, warmup_epochs: Epochs = 0) -> None:
        super().__init__(warmup_epochs)
        self.epochs = epochs

    @override
    def factor(self, lr_decay: float, epoch: int) -> float:
        falling = max(1, self.epochs - self.warmup_epochs)
        return 0.5 + 0.5 * math.cos(math.pi * max(0, epoch - self.warmup_epochs) / falling)


def build_schedule(
    scheduler: Schedule | Callable[[Optimizer], Any],
    optimizer: Optimizer,
    groups: Mapping[str, Group],
) -> LRScheduler:
    """The schedule of an optimiser.

    Args:
        scheduler: ours, or one of torch's with everything but the optimiser.
        optimizer: to follow it.
        groups: settings of its parameter groups, by name.

    Raises:
        UserError: If it cannot be built, or waits for a metric.
    """
    if isinstance(scheduler, Schedule):
        names = [group["name"].partition("/")[0] for group in optimizer.param_groups]
        return scheduler.build(optimizer, [groups[name].lr_decay for name in names])
    try:
        schedule = scheduler(optimizer)
    except Exception as error:  # whatever another's constructor raises
        raise problem("scheduler", f"cannot be built ({one_line(error)})") from error
    if isinstance(schedule, ReduceLROnPlateau) or not isinstance(schedule, LRScheduler):
        what = "must be a schedule over epochs"
        hint = "ReduceLROnPlateau waits for a metric: use scheduler=cosine or milestones."
        raise problem("scheduler", what, type(schedule).__name__, hint)
    return schedule


def resolve_milestones(milestones: str | Sequence[int], epochs: int) -> list[int]:
    """Epochs at which the rates decay.

    Args:
        milestones: a name of :data:`MILESTONES` or a list of epochs.
        epochs: of the training. A named milestone that falls on epoch 0 of a very short run is
            left out.

    Raises:
        UserError: If the name is unknown, or the list is not increasing within the training.
    """
    if isinstance(milestones, str):
        if milestones not in MILESTONES:
            hint = did_you_mean(milestones, MILESTONES)
            raise problem("scheduler.milestones", "unknown", milestones, hint)
        at = (int(fraction * epochs) for fraction in MILESTONES[milestones])
        return [epoch for epoch in at if epoch > 0]
    problems = Problems()
    listed = list(milestones)
    problems.require(
        all(a < b for a, b in itertools.pairwise(listed)),
        "scheduler.milestones",
        "must increase",
        listed,
    )
    problems.require(
        all(0 < epoch < epochs for epoch in listed),
        "scheduler.milestones",
        f"must lie between epoch 1 and the last, {epochs - 1}",
        listed,
    )
    problems.raise_if_any()
    return listed
