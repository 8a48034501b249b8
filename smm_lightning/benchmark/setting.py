"""What is measured, and the parts for it, built without a configuration file."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from smm_lightning.backbone import (
    BackboneSpec,
    EfficientNetLite0,
    TinyNetwork,
    TorchvisionResNet,
    VisionTransformerB32,
)
from smm_lightning.classifier import build_classifier
from smm_lightning.dataset import ImageDataModule, Listing, Source, Splits
from smm_lightning.dataset.splits import ArraySplit
from smm_lightning.mapping import OneToOneMapping
from smm_lightning.method import FramePrompt, InputTransform, PadPrompt, SampleSpecificMask
from smm_lightning.training import Training
from smm_lightning.training.loss import CrossEntropy
from smm_lightning.training.module import ReprogrammingModule
from smm_lightning.training.optimizer import Group, GroupedOptimizer, Milestones
from smm_lightning.training.provenance import Provenance

BACKBONES = {
    "efficientnet_lite0": (EfficientNetLite0, 128, {}),
    "resnet18": (TorchvisionResNet, 224, {"model": "resnet18", "weights_name": "IMAGENET1K_V1"}),
    "resnet50": (TorchvisionResNet, 224, {"model": "resnet50", "weights_name": "IMAGENET1K_V2"}),
    "vit_b32": (VisionTransformerB32, 384, {}),
    "tiny": (TinyNetwork, 32, {}),
}
FRAMES = {"narrow": 0.125, "medium": 0.25, "full": 0.5}
METHODS = ("smm", "pad", *FRAMES)
_SIDE = 32  # of the images, in pixels


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        backbone: a key of :data:`BACKBONES`; with random weights, which are as fast as any.
        size: side of its input, in pixels.
        method: one of :data:`METHODS`.
        batch: images a step.
        precision: Lightning's name, or ``auto``.
        refresh: of the label mapping.
        train_images: images an epoch.
        test_images: images that are tested after every epoch.
        classes: T.
        width: of the mask generator.
        epochs: all but the last are to warm up.
        steps: of a measurement of the frozen network alone.
        accelerator: ``cpu`` or ``cuda``.
        compiled: also try ``torch.compile`` on a CPU.
        peer: a checkout of the published code.
        peer_batch: its batch size, where it is to differ.
        work: a folder for image caches and the published code's files.
    """

    backbone: str = "resnet18"
    size: int = 224
    method: str = "smm"
    batch: int = 32
    precision: str = "auto"
    refresh: str = "epoch"
    train_images: int = 640
    test_images: int = 128
    classes: int = 10
    width: int = 8
    epochs: int = 2
    steps: int = 8
    accelerator: str = "cpu"
    compiled: bool = False
    peer: str | None = None
    peer_batch: int | None = None
    work: str = "."

    def changed(self, **values: object) -> "Setting":
        """Another setting."""
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]

    @property
    def device(self) -> torch.device:
        """That is measured."""
        return torch.device(self.accelerator)


class RandomImages(Source):
    """Noise of 32 x 32 in memory, treated as CIFAR-10 is; all classes take part.

    Args:
        setting: how many images and classes.
    """

    name = "random"
    image_size = _SIDE

    def __init__(self, setting: Setting) -> None:
        self.setting = setting

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, 32, 32, 3) uint8 and labels (N,) of ``train`` or ``test``."""
        train = split == "train"
        count = self.setting.train_images if train else self.setting.test_images
        random = np.random.default_rng(int(train))
        images = random.integers(0, 256, (count, _SIDE, _SIDE, 3), dtype=np.uint8)
        return images, np.arange(count) % self.setting.classes

    def listings(self, load: Callable[[], Splits] | None = None) -> dict[str, Listing]:  # noqa: ARG002
        """See :meth:`Source.listings`."""
        facts = dataclasses.astuple(self.setting)
        return {name: Listing(f"random/{name}/{facts}") for name in ("train", "test")}

    def load(self) -> Splits:
        """See :meth:`Source.load`."""
        splits = {name: ArraySplit(name, *self.arrays(name)) for name in ("train", "test")}
        names = [str(number) for number in range(self.setting.classes)]
        return Splits(**splits, val=None, class_names=names)


def spec_of(setting: Setting, **options: bool) -> BackboneSpec:
    """The frozen network, with random weights."""
    kind, _, fixed = BACKBONES[setting.backbone]
    arguments = {**fixed, **options, "pretrained": False}
    spec: BackboneSpec = kind(image_size=setting.size, **arguments)
    return spec


def method_of(setting: Setting, spec: BackboneSpec) -> InputTransform:
    """f_in."""
    size, mean, std = spec.image_size, spec.mean, spec.std
    if setting.method == "smm":
        layers = 6 if setting.backbone == "vit_b32" else 5
        return SampleSpecificMask(size, mean, std, layers=layers, width=setting.width)
    if setting.method == "pad":
        return PadPrompt(size, mean, std, native_size=_SIDE if size > _SIDE else size // 2)
    return FramePrompt(size, mean, std, FRAMES[setting.method])


def parts_of(setting: Setting) -> tuple[ImageDataModule, ReprogrammingModule]:
    """Everything that trains, at the settings of ``conf``."""
    spec = spec_of(setting)
    method = method_of(setting, spec)
    data = ImageDataModule(
        RandomImages(setting),
        batch_size=setting.batch,
        augmentation="paper",
        image_cache=Path(setting.work) / "image_cache",
        size=method.input_size,
        augmented=method.augmented,
    )
    data.setup()
    mapping = partial(OneToOneMapping, refresh=cast("Any", setting.refresh))
    groups = dict.fromkeys(("pattern", "mask_generator"), Group(lr=0.01, lr_decay=0.1))
    training = Training(
        GroupedOptimizer(torch.optim.Adam, groups),
        Milestones(max(setting.epochs, 1), "published"),
        CrossEntropy(),
    )
    classifier = build_classifier(spec, method, mapping, data.class_names)
    module = ReprogrammingModule(classifier, training, Provenance(images=data.images))
    return data, module
