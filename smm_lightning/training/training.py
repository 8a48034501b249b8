"""How a prompt is trained: optimiser, schedule over epochs, and loss."""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from smm_lightning.errors import Problems, one_line, problem
from smm_lightning.training.loss import CrossEntropy
from smm_lightning.training.optimizer import LATER, GroupedOptimizer
from smm_lightning.training.schedule import Constant, Schedule, build_schedule

_ROUNDING = 1e-12  # that a schedule towards 0 may end below it
_REHEARSED = 1000  # epochs, which take some 10 ms
_WITH_STATE = ("optimizer.algorithm", "scheduler")  # in a checkpoint


@dataclass
class Training:
    """How a prompt is trained.

    Args:
        optimizer: with the rates.
        scheduler: ours, or from an optimiser to one of torch's; by default rates stay.
        loss: from target logits (B, T) and targets (B,) to the mean over the batch.
        nodes: the configuration of ``optimizer`` and ``scheduler``, written into checkpoints.
    """

    optimizer: GroupedOptimizer
    scheduler: Schedule | Callable[[Optimizer], Any] = field(default_factory=Constant)
    loss: Callable[[Tensor, Tensor], Tensor] = field(default_factory=CrossEntropy)
    nodes: dict[str, Any] = field(default_factory=dict)

    def prepare(self, counts: Tensor) -> None:
        """Tell a loss that asks for it how many training images each class has.

        Args:
            counts: (T,).
        """
        if hasattr(self.loss, "prepare"):
            self.loss.prepare(counts)

    def build(
        self, parameters: Mapping[str, list[Parameter]], *, fused: bool = True
    ) -> tuple[Optimizer, LRScheduler]:
        """Optimiser and schedule of what is trained; see :meth:`GroupedOptimizer.build`."""
        optimizer = self.optimizer.build(parameters, fused=fused)
        return optimizer, build_schedule(self.scheduler, optimizer, self.optimizer.groups)

    def rehearse(self, parameters: Mapping[str, list[Parameter]], epochs: int) -> None:
        """Try the schedule without images, for what shows only when it is used.

        Args:
            parameters: see :meth:`GroupedOptimizer.build`.
            epochs: of the training.

        Raises:
            UserError: If it fails or gives rates below 0.
        """
        # What mapping and adapter train is known later, but not under which settings.
        later = [name for name in LATER if name in self.optimizer.groups]
        parameters = {**{name: [Parameter(torch.zeros(1))] for name in later}, **parameters}
        if not parameters:
            return
        optimizer, schedule = self.build(parameters)
        for epoch in range(min(epochs, _REHEARSED)):
            rates = {group["name"]: float(group["lr"]) for group in optimizer.param_groups}
            if not all(math.isfinite(rate) and rate >= -_ROUNDING for rate in rates.values()):
                raise problem("scheduler", f"gives rates below 0 in epoch {epoch}", rates)
            try:
                with warnings.catch_warnings(action="ignore"):  # torch misses the optimiser's steps
                    schedule.step()
            except Exception as error:  # whatever another's schedule raises
                what = f"fails after epoch {epoch} ({one_line(error)})"
                raise problem("scheduler", what) from error

    def rehearse_loss(self, classes: int) -> None:
        """Try the loss without images, after :meth:`prepare`.

        Args:
            classes: T.

        Raises:
            UserError: If it fails, or is no mean over the batch of something to make small.
        """
        if isinstance(self.loss, torch.nn.NLLLoss):
            what = "takes logarithms of probabilities, and would fall without end on logits"
            raise problem("loss", what, "NLLLoss", "Use loss=cross_entropy.")
        # Two samples with known right answers are enough to tell a loss from its negative.
        targets = torch.arange(2) % classes
        logits = 4.0 * torch.nn.functional.one_hot(targets, classes)
        logits[0] *= 2  # so that a sum and a mean differ, and the samples do
        try:
            loss = self.loss(logits, targets)
            twice = self.loss(logits.repeat(2, 1), targets.repeat(2))
            wrong = self.loss(-logits, targets)
        except Exception as error:  # whatever another's loss raises
            what = f"takes no logits (B, T) and class numbers (B,) ({one_line(error)})"
            raise problem("loss", what) from error
        if not isinstance(loss, Tensor) or loss.ndim:
            raise problem("loss", "must be one number for a batch")
        if not torch.allclose(loss, twice, atol=1e-6):
            raise problem("loss", "must be the mean over the batch, not the sum")
        if classes > 1 and not loss < wrong:
            what = "is not smaller for right answers than for wrong ones"
            raise problem("loss", what, loss.item())

    def require_continuation_of(self, stored: Mapping[str, Any], problems: Problems) -> None:
        """Note what keeps a training of other settings from going on as this one.

        Args:
            stored: ``nodes`` of the other one.
            problems: what was found so far.
        """
        ours = isinstance(self.scheduler, Schedule)  # a function of the epoch, without a state
        for name in _WITH_STATE:
            then, now = (_node(nodes, name).get("_target_") for nodes in (stored, self.nodes))
            stateless = name == "scheduler" and ours and str(then).startswith("smm_lightning.")
            cannot = f"the checkpoint was trained with another {name}, whose state it holds"
            same = then == now or stateless
            problems.require(same, "ckpt_path", cannot, then, f"Now it is {now}.")
        for name in sorted({*_groups(stored), *_groups(self.nodes)}):
            then, now = (
                (_groups(nodes).get(name) or {}).get("by_fan_in", False)
                for nodes in (stored, self.nodes)
            )
            what = (
                f"the checkpoint was trained with by_fan_in={then} of {name}, whose state it holds"
            )
            problems.require(then == now, "ckpt_path", what, hint=f"Now it is {now}.")
        if not ours and not problems.lines:
            what = "under a schedule of torch's, rates and schedule stay what they were"
            problems.require(stored == self.nodes, "ckpt_path", what)


def _groups(nodes: Mapping[str, Any]) -> Mapping[str, Any]:
    return _node(nodes, "optimizer.groups")


def _node(nodes: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    node: Any = nodes
    for part in name.split("."):
        node = (node or {}).get(part)
    return node or {}
