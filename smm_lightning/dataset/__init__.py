"""Images and labels: sources, image caches, order, augmentation, batches."""

from smm_lightning.dataset.coop import CoOp
from smm_lightning.dataset.datamodule import Batch, ImageDataModule
from smm_lightning.dataset.facts import Facts
from smm_lightning.dataset.hub import HubDataset
from smm_lightning.dataset.sources import Digits, ImageFolder, Listing, Source
from smm_lightning.dataset.splits import Decoding, Split, Splits
from smm_lightning.dataset.torchvision_sources import TorchvisionArrays, TrafficSigns

__all__ = [
    "Batch",
    "CoOp",
    "Decoding",
    "Digits",
    "Facts",
    "HubDataset",
    "ImageDataModule",
    "ImageFolder",
    "Listing",
    "Source",
    "Split",
    "Splits",
    "TorchvisionArrays",
    "TrafficSigns",
]
