"""One Adam with named groups, each with its own step schedule (paper appendix; PAPER_MAP.md)."""

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from smm_lightning.errors import Problems, did_you_mean

# Shares of all epochs at which the rates decay.
MILESTONES = {
    "published": (0.5, 0.72),  # SMM instancewise_vp.py: int(0.5 E), int(0.72 E)
    "paper": (0.5, 0.725),  # the text: epochs 100 and 145 of 200
    "short": (0.6, 0.8),  # ours, for a handful of epochs: more of them at the full rate
}


@dataclass
class GroupSettings:
    """Learning rate of a parameter group.

    Args:
        lr: initial rate, positive.
        decay: factor at every milestone, in (0, 1].
    """

    lr: float
    decay: float


class OptimizerSpec:
    """Adam for the pattern and the mask generator, with rates that decay at milestones.

    Equal to the published two Adams with two MultiStepLRs but for fp16 overflows, where the
    published code may skip the step of one of them alone.

    Args:
        epochs: of the training.
        milestones: ``published``, ``paper`` or a list of epochs.
        pattern: settings of delta.
        mask_generator: settings of phi.

    Raises:
        UserError: If a value is out of range.
    """

    def __init__(
        self,
        epochs: int,
        milestones: str | Sequence[int],
        pattern: GroupSettings,
        mask_generator: GroupSettings,
    ) -> None:
        self.settings = {"pattern": pattern, "mask_generator": mask_generator}
        problems = Problems()
        problems.require(epochs >= 1, "epochs", "must be at least 1", epochs)
        for name, group in self.settings.items():
            problems.require(
                isinstance(group.lr, int | float) and math.isfinite(group.lr) and group.lr > 0,
                f"optimizer.{name}.lr",
                "must be a positive number",
                group.lr,
                "The paper uses 0.01.",
            )
            problems.require(
                0 < group.decay <= 1, f"optimizer.{name}.decay", "must be in (0, 1]", group.decay
            )
        self.milestones: list[int] = []
        with problems.caught():
            self.milestones = resolve_milestones(milestones, epochs)
        problems.raise_if_any()

    def factor(self, name: str, epoch: int) -> float:
        """What the initial rate of group ``name`` is multiplied with in ``epoch``."""
        return float(self.settings[name].decay ** bisect_right(self.milestones, epoch))

    def build(self, groups: dict[str, list[nn.Parameter]]) -> tuple[Adam, LambdaLR]:
        """The optimiser and its schedule, to be stepped once an epoch.

        Args:
            groups: parameters by name, as :meth:`InputTransform.parameter_groups` gives them.
        """
        adam = Adam(
            [
                {"params": parameters, "lr": self.settings[name].lr, "name": name}
                for name, parameters in groups.items()
            ],
            fused=True,  # one kernel, and able to skip a step without asking the host
        )
        return adam, LambdaLR(adam, [partial(self.factor, name) for name in groups])


def resolve_milestones(milestones: str | Sequence[int], epochs: int) -> list[int]:
    """Epochs at which the rates decay.

    Args:
        milestones: a name of :data:`MILESTONES` or a list of epochs.
        epochs: of the training. A named milestone that falls on epoch 0 of a very short run is
            left out.

    Raises:
        UserError: If the name is unknown, or the list is not increasing within the training.
    """
    problems = Problems()
    if isinstance(milestones, str):
        known = milestones in MILESTONES
        cure = did_you_mean(milestones, MILESTONES)
        problems.require(known, "optimizer.milestones", "unknown", milestones, cure)
        problems.raise_if_any()
        at = (int(share * epochs) for share in MILESTONES[milestones])
        return [epoch for epoch in at if epoch > 0]
    listed = list(milestones)
    problems.require(
        all(a < b for a, b in itertools.pairwise(listed)),
        "optimizer.milestones",
        "must increase",
        listed,
    )
    problems.require(
        all(0 < epoch < epochs for epoch in listed),
        "optimizer.milestones",
        f"must lie between epoch 1 and the last, {epochs - 1}",
        listed,
    )
    problems.raise_if_any()
    return listed
