"""What the LightningModule asks of the images that it trains on."""

from collections.abc import Iterator
from typing import Any, Protocol

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from smm_lightning.dataset import Batch
from smm_lightning.dataset.batch import pair_of


class TrainingData(Protocol):
    """What a datamodule may know beyond its loaders; each of it has a default.

    Attributes:
        evaluation_splits: names of the validation loaders, ``test`` or ``val``, in their order;
            by default they are all ``val``.
    """

    evaluation_splits: list[str]

    def mapping_batches(self, device: torch.device) -> Iterator[Batch]:
        """The epoch's training images of this rank for counting; by default the training loader."""

    def full_batches(self) -> set[int]:
        """Sizes of whole batches on a rank, in training and in evaluation.

        By default none are known, and nothing is compiled.
        """


def split_of(trainer: L.Trainer, loader: int) -> str:
    """The split of a validation loader."""
    splits: list[str] = getattr(_datamodule(trainer), "evaluation_splits", [])
    return splits[loader] if loader < len(splits) else "val"


def counted_pairs(trainer: L.Trainer, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and targets of this epoch for counting, on the device."""
    asked = getattr(_datamodule(trainer), "mapping_batches", None)
    loader: Any = trainer.train_dataloader or ()
    batches = asked(device) if asked else (move_data_to_device(batch, device) for batch in loader)
    for batch in batches:
        yield pair_of(batch)


def full_batches(trainer: L.Trainer) -> set[int]:
    """See :meth:`TrainingData.full_batches`."""
    asked = getattr(_datamodule(trainer), "full_batches", None)
    return asked() if asked else set()


def _datamodule(trainer: L.Trainer) -> TrainingData | None:
    return getattr(trainer, "datamodule", None)
