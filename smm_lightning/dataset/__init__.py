"""Images and labels: sources, image banks, order, augmentation, batches."""

from smm_lightning.dataset.coop import CoOp
from smm_lightning.dataset.datamodule import Batch, ImageDataModule
from smm_lightning.dataset.hub import HubDataset
from smm_lightning.dataset.sources import Digits, ImageFolder, Source
from smm_lightning.dataset.splits import Split, Splits
from smm_lightning.dataset.torchvision_sources import TorchvisionArrays, TrafficSigns

__all__ = [
    "Batch",
    "CoOp",
    "Digits",
    "HubDataset",
    "ImageDataModule",
    "ImageFolder",
    "Source",
    "Split",
    "Splits",
    "TorchvisionArrays",
    "TrafficSigns",
]
