"""Trained layers in place of a counted mapping: on the source logits, or on the features."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from smm_lightning.mapping.label_mapping import LabelMapping, in_float32
from smm_lightning.ranges import Reads, Seed


class LinearMapping(LabelMapping):
    """Target logits (B, T) = a trained layer on the source logits (B, S).

    Source: the learned mapping of ILM-VP and BayesianLM, here with a bias that is trained, too.

    Args:
        inputs: S source classes, or D features.
        classes: T target classes.
        seed: of the first weights, which are PyTorch's own choice for such a layer.
    """

    def __init__(self, inputs: int, classes: int, seed: Seed = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, classes)
        # A generator of its own: they must not depend on what was drawn before, such as by workers.
        generator, bound = torch.Generator().manual_seed(seed), inputs**-0.5
        for weight in (self.layer.weight, self.layer.bias):
            nn.init.uniform_(weight, -bound, bound, generator)

    @override
    def forward(self, source: Tensor) -> Tensor:
        with torch.autocast(source.device.type, enabled=False):  # a head computes in float32
            widened = in_float32(source)
            logits: Tensor = self.layer(widened.to(self.layer.weight.dtype))
        return logits

    @override
    def dense(self) -> Tensor | None:
        """See :meth:`LabelMapping.dense`: the layer's weights, of any sign."""
        return self.layer.weight.detach().T.cpu().clone() if self.reads == "logits" else None


class FeatureHead(LinearMapping):
    """Target logits (B, T) = a trained layer on the features (B, D): a head (paper, Table 14).

    Args:
        inputs: D features.
        classes: T target classes.
        seed: see :class:`LinearMapping`.
    """

    reads: ClassVar[Reads] = "features"
