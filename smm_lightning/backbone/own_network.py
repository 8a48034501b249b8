"""A frozen network that the user hands over: no file holds its code or its weights."""

from dataclasses import dataclass, field
from typing import NoReturn

from torch import nn
from typing_extensions import override

from smm_lightning.backbone.spec import BackboneSpec
from smm_lightning.errors import problem
from smm_lightning.ranges import Count


@dataclass(kw_only=True)
class OwnNetwork(BackboneSpec):
    """What is known of a network that was handed over.

    Args:
        source_classes: how many it has.
        mean: normalisation that it was trained with, for images in [0, 1].
        std: likewise.
    """

    source_classes: Count = field()
    mean: tuple[float, ...] = field()
    std: tuple[float, ...] = field()

    @override
    def architecture(self) -> NoReturn:
        what = "is a network of your own, which no file holds"
        hint = "Hand it over: ReprogrammedClassifier.from_pretrained(<file>, backbone=<network>)."
        raise problem("backbone", what, hint=hint)

    @override
    def pretrained_network(self) -> nn.Module:
        return self.architecture()
