"""Which frozen networks there are. A spec knows the facts; ``build`` loads the network.

A spec is cheap, so a configuration can be checked as a whole before any weights are read.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Le
from timm.data import ImageNetInfo
from torch import nn

from smm_lightning.backbone.adapter import Adapter, NoAdapter
from smm_lightning.backbone.any_network import taken_over
from smm_lightning.backbone.backbone import Backbone
from smm_lightning.backbone.weights import (
    Weights,
    load_weights,
    read_weights,
    require_file,
)
from smm_lightning.errors import Problems, problem
from smm_lightning.ranges import Reads

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_IMAGENET_CLASSES = 1000
_NO_ADAPTER = NoAdapter()
# Below 8 the strides of every network here leave nothing.
InputSize = Annotated[int, Ge(8), Le(4096)]


@dataclass(kw_only=True)
class BackboneSpec(ABC):
    """Facts of a frozen network, and how to build it.

    Args:
        image_size: side S of the input, in pixels.
        pretrained: ``False`` takes random weights (tests, benchmarks).
        weights: a local file of weights, instead of the usual source.
        folded: see :class:`Backbone`.
        channels_last: see :class:`Backbone`.
        fast_stem: see :class:`Backbone`.
        classifier_layer: see :class:`Backbone`.

    Raises:
        UserError: If the file does not exist.
    """

    image_size: InputSize
    pretrained: bool = True
    weights: str | None = None
    folded: bool = True
    channels_last: bool = True
    fast_stem: bool = True
    classifier_layer: str | None = None
    mean: tuple[float, ...] = field(default=IMAGENET_MEAN, init=False)
    std: tuple[float, ...] = field(default=IMAGENET_STD, init=False)
    source_classes: int = field(default=_IMAGENET_CLASSES, init=False)

    def __post_init__(self) -> None:
        """Check what can be checked before anything is loaded."""
        self._file = require_file(self.weights)

    def build(self, adapter: Adapter = _NO_ADAPTER, reads: Reads = "logits") -> Backbone:
        """The network, with its weights.

        Args:
            adapter: see :class:`Backbone`.
            reads: likewise.

        Raises:
            UserError: If the weights cannot be fetched or read, or fit another architecture; or the
                network has nothing that the adapter could train.
        """
        if self._file is not None:
            network = self.architecture()
            load_weights(network, self.translate(read_weights(self._file)), str(self._file))
        else:
            network = self.pretrained_network() if self.pretrained else self.architecture()
        return self.freeze(network, self.class_names(), adapter, reads)

    def freeze(
        self,
        network: nn.Module,
        class_names: list[str],
        adapter: Adapter = _NO_ADAPTER,
        reads: Reads = "logits",
    ) -> Backbone:
        """A network with these facts, in place.

        Args:
            network: that returns logits alone.
            class_names: of its source classes.
            adapter: see :class:`Backbone`.
            reads: likewise.
        """
        return Backbone(
            network,
            self.image_size,
            self.mean,
            self.std,
            class_names,
            folded=self.folded,
            channels_last=self.channels_last,
            fast_stem=self.fast_stem,
            classifier_layer=self.classifier_layer,
            adapter=adapter,
            reads=reads,
        )

    def adopt(
        self, network: nn.Module, adapter: Adapter = _NO_ADAPTER, reads: Reads = "logits"
    ) -> Backbone:
        """A network that is there already, instead of loading one.

        Args:
            network: a frozen one, which is shared, or any classifier, which is copied.
            adapter: see :class:`Backbone`.
            reads: likewise.

        Raises:
            UserError: If it has another size, normalisation or number of classes, or is trained for
                another classifier.
        """
        if isinstance(network, Backbone):
            frozen = network
            # The same settings are not the same weights.
            trained = not isinstance(adapter, NoAdapter) or network.trained is not None
            if trained and network.adapter is not adapter:
                what, hint = "is trained, so it cannot be shared", "Hand over the bare network."
                raise problem("backbone", what, hint=hint)
        else:
            frozen = self.freeze(*taken_over(network, self.image_size), adapter, reads)
        problems = Problems()
        for field_, ours, given in (
            ("image_size", self.image_size, frozen.image_size),
            ("mean", tuple(self.mean), tuple(frozen.mean)),
            ("std", tuple(self.std), tuple(frozen.std)),
            ("source_classes", self.source_classes, len(frozen.class_names)),
            ("classifier_layer", self.classifier_layer, frozen.classifier_layer),
        ):
            same = ours == given
            problems.require(same, f"backbone.{field_}", f"must be {ours} for this prompt", given)
        problems.raise_if_any()
        return frozen

    @property
    def of_images(self) -> dict[str, Any]:
        """What a method must know of the network's input."""
        return {"image_size": self.image_size, "mean": self.mean, "std": self.std}

    def class_names(self) -> list[str]:
        """Names of the source classes: ImageNet-1K's, else their numbers."""
        if self.source_classes == _IMAGENET_CLASSES:
            names = ImageNetInfo("imagenet-1k")
            return [names.index_to_description(i) for i in range(_IMAGENET_CLASSES)]
        return [str(number) for number in range(self.source_classes)]

    @abstractmethod
    def architecture(self) -> nn.Module:
        """The network with random weights."""

    @abstractmethod
    def pretrained_network(self) -> nn.Module:
        """The network with the weights of its usual source."""

    def translate(self, weights: Weights) -> Weights:
        """Names of the file to names of the architecture; the same unless a spec says otherwise."""
        return weights
