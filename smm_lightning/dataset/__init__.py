"""Images and labels: sources, image caches, order, augmentation, batches."""

from typing import TYPE_CHECKING, Any

from smm_lightning.dataset.batch import Batch
from smm_lightning.dataset.coop import CoOp
from smm_lightning.dataset.decoding import Decoding
from smm_lightning.dataset.digits import Digits
from smm_lightning.dataset.facts import Facts
from smm_lightning.dataset.hub import HubDataset
from smm_lightning.dataset.image_folder import ImageFolder
from smm_lightning.dataset.sources import Listing, Source
from smm_lightning.dataset.splits import Split, Splits
from smm_lightning.dataset.torchvision_sources import TorchvisionArrays, TrafficSigns

if TYPE_CHECKING:
    from smm_lightning.dataset.datamodule import ImageDataModule

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


def __getattr__(name: str) -> Any:
    """Load what needs Lightning only when it is asked for: a prompt file is used without it."""
    if name == "ImageDataModule":
        from smm_lightning.dataset.datamodule import ImageDataModule

        return ImageDataModule
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
