"""Frozen classifiers f_P, and where their weights come from."""

from smm_lightning.backbone.adapter import Adapter, FineTuning, LoRA, NoAdapter
from smm_lightning.backbone.any_network import UsualInput, as_classifier, taken_over, usual_input
from smm_lightning.backbone.backbone import Backbone
from smm_lightning.backbone.efficientnet import (
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
)
from smm_lightning.backbone.folding import fold_batch_norm
from smm_lightning.backbone.own_network import OwnNetwork
from smm_lightning.backbone.resnet import TorchvisionResNet
from smm_lightning.backbone.spec import IMAGENET_MEAN, IMAGENET_STD, BackboneSpec
from smm_lightning.backbone.timm_model import TimmModel
from smm_lightning.backbone.tiny import TinyNetwork
from smm_lightning.backbone.vit_b32 import VisionTransformerB32

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Adapter",
    "Backbone",
    "BackboneSpec",
    "EfficientNetLite0",
    "EfficientNetLite1",
    "EfficientNetLite2",
    "FineTuning",
    "LoRA",
    "NoAdapter",
    "OwnNetwork",
    "TimmModel",
    "TinyNetwork",
    "TorchvisionResNet",
    "UsualInput",
    "VisionTransformerB32",
    "as_classifier",
    "fold_batch_norm",
    "taken_over",
    "usual_input",
]
