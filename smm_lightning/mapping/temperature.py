"""One number that target logits are divided by, against overconfidence."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

from smm_lightning.errors import problem
from smm_lightning.mapping.label_mapping import OverRanks

Temperature = Annotated[float, Gt(0), Le(1e6)] | Literal["auto"]
_BOUNDS = 0.1, 1000.0  # logits that separate all classes have no best temperature above 0
_TOLERANCE = 1e-6  # of its logarithm


def best_temperature(
    batches: Sequence[tuple[Tensor, Tensor]],
    device: torch.device,
    over_ranks: OverRanks = lambda value: value,
) -> float:
    """The temperature under which the cross-entropy of these answers is smallest.

    The loss is convex in the inverse temperature, so there is one minimum (Guo et al., 2017, for
    calibration; here it is the objective that training begins with).

    Args:
        batches: target logits (B, T) and targets (B,), on the CPU.
        device: on which ``over_ranks`` takes a number.
        over_ranks: to the sum over all ranks of a distributed training, which all find the same.

    Returns:
        From 0.1 to 1000.

    Raises:
        UserError: If a logit is not finite.
    """

    # Of its logarithm: a search in T itself would spend its steps between 500 and 1000.
    def loss(logarithm: float) -> float:
        total = torch.zeros((), dtype=torch.float64)
        for logits, targets in batches:
            # In float64, or the last digits of the sum would depend on the size of the batches.
            scaled = logits.double() / math.exp(logarithm)
            total += cross_entropy(scaled, targets, reduction="sum")
        return over_ranks(total if device.type == "mps" else total.to(device)).item()

    bounds = tuple(math.log(bound) for bound in _BOUNDS)
    best = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": _TOLERANCE})
    if not math.isfinite(best.fun):
        raise problem("mapping.temperature", "has no best value: some logits are not finite")
    return math.exp(best.x)
