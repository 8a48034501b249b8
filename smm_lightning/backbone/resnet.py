"""ResNets of torchvision, as in the published code."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from typing_extensions import override

from smm_lightning.backbone.spec import BackboneSpec
from smm_lightning.backbone.weights import (
    fetched,
)


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
