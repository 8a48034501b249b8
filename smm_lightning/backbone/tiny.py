"""A network of two layers, for tests and for looking at what a program does."""

from dataclasses import dataclass

import torch
from torch import nn
from typing_extensions import override

from smm_lightning.backbone.spec import BackboneSpec
from smm_lightning.ranges import Count, Seed


@dataclass(kw_only=True)
class TinyNetwork(BackboneSpec):
    """Two convolutions with fixed random weights: for debugging and tests, in milliseconds.

    Args:
        classes: source classes.
        seed: of the weights.
    """

    classes: Count = 20
    seed: Seed = 0

    def __post_init__(self) -> None:
        """See :class:`BackboneSpec`."""
        super().__post_init__()
        self.source_classes = self.classes

    @override
    def architecture(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return nn.Sequential(
                nn.Conv2d(3, 8, 5, stride=4, bias=False),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(32, self.classes),
            )

    @override
    def pretrained_network(self) -> nn.Module:
        return self.architecture()
