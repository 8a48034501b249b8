"""An optimiser with a rate for each part, and its schedule (paper appendix; PAPER_MAP.md)."""

import itertools
import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from torch import nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau
from typing_extensions import override

from smm_lightning.errors import Problems, closest, did_you_mean, one_line, problem
from smm_lightning.ranges import Count, Factor, Rate

# Of our parts; one that is not there leaves its settings aside.
_GROUPS = {"pattern", "mask_generator", "mapping", "adapter"}
Epochs = Annotated[int, Ge(0), Le(1_000_000)]
# Shares of all epochs at which the rates decay.
MILESTONES = {
    "published": (0.5, 0.72),  # SMM instancewise_vp.py: int(0.5 E), int(0.72 E)
    "paper": (0.5, 0.725),  # the text: epochs 100 and 145 of 200
    "short": (0.6, 0.8),  # ours, for a handful of epochs: more of them at the full rate
}


@dataclass
class Group:
    """Settings of a parameter group.

    Args:
        lr: initial learning rate.
        lr_decay: factor at every milestone.
        by_fan_in: divide the rate of each layer's weights by the number of inputs behind one of its
            outputs. Adam moves every weight by about the rate, so an output moves by that times
            its inputs: 0.01 is a step of some 2 in the last layer of a mask generator.
    """

    lr: Rate
    lr_decay: Factor = 1.0
    by_fan_in: bool = False

    def split(self, name: str, weights: list[nn.Parameter]) -> list[dict[str, Any]]:
        """Parameter groups of an optimiser: one, or one for each fan-in.

        Args:
            name: of the group; what is split off is called ``<name>/<fan-in>``.
            weights: of it.
        """
        if not self.by_fan_in:
            return [{"params": weights, "name": name, "lr": self.lr}]
        fans = sorted({_fan_in(weight) for weight in weights})
        return [
            {
                "params": [weight for weight in weights if _fan_in(weight) == fan],
                "name": f"{name}/{fan}",
                "lr": self.lr / fan,
            }
            for fan in fans
        ]


def _fan_in(weight: nn.Parameter) -> int:
    """Inputs behind an output of a linear layer or a convolution; 1 for everything else."""
    return weight[0].numel() if weight.ndim in (2, 4) else 1


class GroupedOptimizer:
    """One optimiser whose named groups have rates of their own.

    With Adam equal to the published two Adams with two MultiStepLRs but for fp16 overflows, where
    the published code may skip the step of one of them alone.

    Args:
        algorithm: from parameter groups to an optimiser, such as ``partial(torch.optim.Adam)``.
        groups: settings by name: ``pattern`` (delta) and ``mask_generator`` (phi).

    Raises:
        UserError: If the algorithm has a rate of its own.
    """

    def __init__(self, algorithm: Callable[..., Optimizer], groups: Mapping[str, Group]) -> None:
        rate = getattr(algorithm, "keywords", {}).get("lr")
        if rate is not None:
            hint = "Use optimizer.groups.<name>.lr."
            raise problem("optimizer.algorithm.lr", "every group has its own", rate, hint)
        self.algorithm = algorithm
        self.groups = groups

    def build(
        self, parameters: Mapping[str, list[nn.Parameter]], *, fused: bool = True
    ) -> Optimizer:
        """The optimiser of what is trained.

        Args:
            parameters: by group, as :meth:`InputTransform.parameter_groups` gives them.
            fused: as one kernel, where the algorithm has it; it can skip a step without asking the
                host, and does not let gradients be clipped.

        Raises:
            UserError: If a group has no settings, or the algorithm refuses its own.
        """
        missing = parameters.keys() - self.groups.keys()
        if missing:
            raise problem("optimizer.groups", "has no settings of", ", ".join(sorted(missing)))
        for name in self.groups.keys() - parameters.keys() - _GROUPS:
            hint = closest(name, {*parameters, *_GROUPS})
            raise problem("optimizer.groups", "nothing is trained in this group", name, hint)
        groups = [
            group
            for name, weights in parameters.items()
            for group in self.groups[name].split(name, weights)
        ]
        options = {"fused": fused} if _can_be_fused(self.algorithm) else {}
        try:
            optimizer = self.algorithm(groups, **options)
        except Exception as error:  # whatever another's constructor raises
            reason = one_line(error)
            raise problem("optimizer.algorithm", f"cannot be built ({reason})") from error
        if not isinstance(optimizer, Optimizer):
            raise problem("optimizer.algorithm", "gives no optimiser", type(optimizer).__name__)
        return optimizer


def _can_be_fused(algorithm: Callable[..., Any]) -> bool:
    """Whether it has such a kernel, which may skip any step: SGD's has no momentum to begin with.

    What the user says of it is left as it is.
    """
    given = getattr(algorithm, "keywords", {})
    return getattr(algorithm, "func", algorithm) in (Adam, AdamW) and "fused" not in given


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


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Everything about its parameter groups but the parameters."""
    return [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


def take_over(
    optimizer: Optimizer, schedule: object, settings: Sequence[Mapping[str, Any]]
) -> None:
    """Go on with these settings after a state was loaded, which brought those of its own.

    Changes nothing where both are the same. Schedules that are no function of the epoch alone keep
    what was loaded.

    Args:
        optimizer: with loaded momenta.
        schedule: of it, at the epoch to go on with.
        settings: of :func:`settings_of`, before the first epoch.
    """
    if not isinstance(schedule, LambdaLR):
        return
    schedule.base_lrs = [group["initial_lr"] for group in settings]
    rates = [
        rate * factor(schedule.last_epoch)
        for rate, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, setting, rate in zip(optimizer.param_groups, settings, rates, strict=True):
        group.update({**setting, "lr": rate})


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
        at = (int(share * epochs) for share in MILESTONES[milestones])
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
