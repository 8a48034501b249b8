"""Images and labels: sources, order, augmentation, batches."""

from smm_lightning.dataset.datamodule import Batch, ImageDataModule
from smm_lightning.dataset.sources import Digits, ImageFolder, Source, Split, Splits

__all__ = ["Batch", "Digits", "ImageDataModule", "ImageFolder", "Source", "Split", "Splits"]
