"""What training minimises."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Gt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from smm_lightning.errors import problem
from smm_lightning.ranges import Fraction


class CrossEntropy(nn.Module):
    """Mean cross-entropy (paper equation 1), with smoothed labels or weighted classes if wanted.

    Weights have the mean 1 over the training images, and the loss is the mean over samples of
    weight times cross-entropy: so, unlike in ``torch.nn.CrossEntropyLoss``, it does not depend on
    which samples share a batch, or a rank.

    Args:
        label_smoothing: share of each target that is spread over all classes.
        class_weights: ``balanced``: inversely to a class's number of training images; a list with
            one for each class; ``None``: all alike.
    """

    weights: Tensor | None

    def __init__(
        self,
        label_smoothing: Fraction = 0.0,
        class_weights: Literal["balanced"] | Sequence[Annotated[float, Gt(0)]] | None = None,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.register_buffer("weights", None, persistent=False)

    def prepare(self, counts: Tensor) -> None:
        """Learn how many training images each class has.

        Args:
            counts: (T,).

        Raises:
            UserError: If there is another number of weights than of classes.
        """
        if self.class_weights is None:
            return
        if self.class_weights == "balanced":
            weights = 1 / counts.clamp(min=1).float()
        else:
            weights = torch.tensor(self.class_weights, dtype=torch.float32)
            if len(weights) != len(counts):
                what = f"must be one for each of the {len(counts)} classes"
                raise problem("loss.class_weights", what, len(weights))
        self.weights = weights * counts.sum() / (weights * counts).sum()

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Target logits (B, T) and class numbers (B,) to a scalar."""
        if self.weights is None:
            return cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        losses = cross_entropy(
            logits, targets, reduction="none", label_smoothing=self.label_smoothing
        )
        return (self.weights[targets] * losses).mean()
