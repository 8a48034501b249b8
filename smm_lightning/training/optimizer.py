"""An optimiser with a rate for each part, and its schedule (paper appendix; PAPER_MAP.md)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from smm_lightning.errors import closest, one_line, problem
from smm_lightning.ranges import Factor, Rate

LATER = ("mapping", "adapter")  # groups whose parameters are known once weights are read
# Of our parts; one that is not there leaves its settings aside.
_GROUPS = {"pattern", "mask_generator", *LATER}


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


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Everything about its parameter groups but the parameters."""
    return [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


def require_state_of(optimizer: Optimizer) -> None:
    """What was loaded is a state of all parameters at hand.

    Raises:
        UserError: If one has no state, or another one than the others.
    """
    # Of a single number no one can tell what belongs to it and what to all.
    parameters = [one for group in optimizer.param_groups for one in group["params"] if one.ndim]
    kinds = [_kinds(one, optimizer.state.get(one, {})) for one in parameters]
    if any(kind != kinds[0] or "" in kind.values() for kind in kinds):
        what = "the optimiser's state in the checkpoint is not one of what is trained"
        raise problem("ckpt_path", what, hint="force=true begins anew.")


def _kinds(parameter: Tensor, state: Any) -> dict[str, str]:
    """What each entry of a state is; empty for what none can be."""

    def kind(value: Any) -> str:
        if isinstance(value, Tensor):
            finite = bool(value.isfinite().all())
            same = "tensor" if value.shape == parameter.shape and finite else ""
            return "number" if not value.ndim else same
        return type(value).__name__ if isinstance(value, int | float | list | None) else ""

    return {name: kind(v) for name, v in state.items()} if isinstance(state, dict) else {"": ""}


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
