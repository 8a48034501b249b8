"""A frozen network that the user hands over: no file holds its code or its weights."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

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

    Raises:
        UserError: If mean and std are not three finite numbers each, of that range.
    """

    source_classes: Count = field()
    mean: tuple[float, ...] = field()
    std: tuple[float, ...] = field()

    def __post_init__(self) -> None:
        """See :class:`BackboneSpec`; what a network was trained with is in nobody's list."""
        _check_normalization(self.mean, self.std)
        self.mean, self.std = tuple(self.mean), tuple(self.std)
        super().__post_init__()

    @override
    def architecture(self) -> NoReturn:
        what = "is a network of your own, which no file holds"
        hint = "Hand it over: ReprogrammedClassifier.from_pretrained(<file>, backbone=<network>)."
        raise problem("backbone", what, hint=hint)

    @override
    def pretrained_network(self) -> nn.Module:
        return self.architecture()


def _check_normalization(mean: Any, std: Any) -> None:
    for name, values, least in (("mean", mean, -1.0), ("std", std, 1e-3)):
        numbers = list(values) if isinstance(values, Iterable) else []
        real = all(isinstance(number, int | float) for number in numbers)
        if len(numbers) != 3 or not real or not all(least <= n <= 1 for n in numbers):  # noqa: PLR2004
            hint = "Numbers for images of 0 to 255 are to be divided by 255."
            raise problem(name, "must be three numbers, for images in [0, 1]", values, hint)
