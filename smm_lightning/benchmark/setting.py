"""What is measured: a configuration of ``conf/`` with random images and random weights."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from typing_extensions import override

from smm_lightning.backbone import BackboneSpec
from smm_lightning.dataset import Source, Splits
from smm_lightning.dataset.splits import ArraySplit
from smm_lightning.run.config import composed, quoted
from smm_lightning.training.assembly import build

_SIDE = 32  # of the images, in pixels
_MASKED = ("smm", "only_mask")  # methods that begin so have a mask generator


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        backbone: of ``conf/backbone``; with random weights, which are as fast as any.
        size: side of its input, in pixels; ``None``: the backbone's.
        method: of ``conf/method``.
        batch: images a step.
        micro_batch: images at a time through the network in training; 0: all of a step.
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
    size: int | None = None
    method: str = "smm"
    batch: int = 32
    micro_batch: int = 0
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

    @property
    def device(self) -> torch.device:
        """That is measured."""
        return torch.device(self.accelerator)


class RandomImages(Source):
    """Noise of 32 x 32 in memory, treated as CIFAR-10 is; all classes take part.

    Args:
        train_images: how many.
        test_images: likewise.
        classes: T.
    """

    name = "random"
    image_size = _SIDE

    def __init__(self, train_images: int, test_images: int, classes: int) -> None:
        self.counts = {"train": train_images, "test": test_images}
        self.classes = classes

    def arrays(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, 32, 32, 3) uint8 and labels (N,) of ``train`` or ``test``."""
        random = np.random.default_rng(int(split == "train"))
        shape = (self.counts[split], _SIDE, _SIDE, 3)
        images = random.integers(0, 256, shape, dtype=np.uint8)
        return images, np.arange(len(images)) % self.classes

    @override
    def load(self) -> Splits:
        splits = {name: ArraySplit(name, *self.arrays(name)) for name in self.counts}
        names = [str(number) for number in range(self.classes)]
        return Splits(**splits, val=None, class_names=names)


def config_of(setting: Setting) -> DictConfig:
    """The configuration of such a training.

    Raises:
        HydraException: If there is no such choice.
    """
    overrides = {
        "backbone": setting.backbone,
        "method": setting.method,
        "recipe": "paper",
        "protocol": "published",
        "callbacks": "none",
        "epochs": max(setting.epochs, 1),
        "mapping.refresh": setting.refresh,
        "trainer.accelerator": {"cuda": "gpu"}.get(setting.accelerator, setting.accelerator),
        "trainer.precision": setting.precision,
        "dataset.batch_size": setting.batch,
        "micro_batch": setting.micro_batch or "null",
        "dataset.augmentation": "paper",
        "dataset.source._target_": f"{__name__}.RandomImages",
        "paths.root": quoted(setting.work),
        "paths.image_cache": quoted(f"{setting.work}/image_cache"),
        "++backbone.pretrained": "false",
        **{f"+dataset.source.{n}": getattr(setting, n) for n in ("train_images", "test_images")},
        "+dataset.source.classes": setting.classes,
    }
    if setting.size is not None:
        overrides["backbone.image_size"] = setting.size
    if setting.method.startswith(_MASKED):
        overrides["method.width"] = setting.width
    config = composed(f"{field}={value}" for field, value in overrides.items())
    side = build(config.backbone, "backbone").image_size  # timm's models know their own
    config.backbone.image_size = side
    config.dataset.native_size = _SIDE if side > _SIDE else side // 2  # the pad method has a border
    return config


def spec_of(setting: Setting, **options: bool) -> BackboneSpec:
    """The frozen network with other options of :class:`Backbone`."""
    node: dict[str, Any] = {**config_of(setting).backbone, **options}
    spec: BackboneSpec = build(node, "backbone")
    return spec


def resolved(setting: Setting) -> dict[str, Any]:
    """As plain values, with the size of the backbone."""
    side = config_of(setting).backbone.image_size
    return dataclasses.asdict(dataclasses.replace(setting, size=side))
