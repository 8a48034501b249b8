"""From a source to batches on the device."""

from collections.abc import Callable, Iterator
from typing import TypedDict

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smm_lightning.dataset.augmentation import PRESETS, augment
from smm_lightning.dataset.sampler import DerivedBatchSampler
from smm_lightning.dataset.sources import Source, Split
from smm_lightning.errors import Problems, did_you_mean, problem


class Batch(TypedDict):
    """What the training loop gets.

    ``image`` leaves the loader as uint8 and reaches the module as float32 in [0, 1], cropped and
    flipped, (B, 3, size, size); ``target`` (B,) int64; ``index`` (B,) int64, the sample's number in
    its split.
    """

    image: Tensor
    target: Tensor
    index: Tensor


class ResizedImages(Dataset[dict[str, Tensor | int]]):
    """Images of a split, resized by PIL as published: bilinear, both sides to ``size``.

    Args:
        split: where the images come from.
        size: side in pixels.
        chosen: numbers of the samples that take part.
    """

    def __init__(self, split: Split, size: int, chosen: NDArray[np.int64]) -> None:
        self.split = split
        self.size = size
        self.chosen = chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, position: int) -> dict[str, Tensor | int]:
        index = int(self.chosen[position])
        image = self.split.read(index).resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        return {"image": pixels, "target": int(self.split.labels[index]), "index": index}


class ImageDataModule(L.LightningDataModule):
    """Training, validation and test images of one dataset.

    Training images are resized to ``size`` + margin and cropped on the device; test images to
    ``size`` (SMM ``instancewise_vp.py``). The training loop validates on ``test`` and, where the
    dataset has one, on ``val``.

    Args:
        source: where the images come from.
        batch_size: samples a training step, over all devices.
        augmentation: ``paper``, ``no_flip`` or ``none``.
        native_size: side of the images that the pad method gets, in pixels.
        num_workers: processes that read images; 0 reads in the training process.
        train_images: a stratified part of the training images; ``None`` takes all.
        test_images: likewise for the test images.
        subset_seed: which part.
        seed: of the order and the augmentation.
        size: side of the images, in pixels.
        augmented: ``False`` overrides ``augmentation`` with ``none``.

    Raises:
        UserError: If an argument is out of range.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        augmentation: str,
        native_size: int,
        num_workers: int = 0,
        train_images: int | None = None,
        test_images: int | None = None,
        subset_seed: int = 0,
        seed: int = 0,
        size: int = 224,
        augmented: bool = True,
    ) -> None:
        super().__init__()
        problems = Problems()
        problems.require(batch_size >= 1, "dataset.batch_size", "must be at least 1", batch_size)
        problems.require(num_workers >= 0, "dataset.num_workers", "cannot be negative", num_workers)
        problems.require(
            augmentation in PRESETS,
            "dataset.augmentation",
            "unknown",
            augmentation,
            did_you_mean(str(augmentation), PRESETS),
        )
        problems.raise_if_any()
        self.source = source
        self.batch_size = batch_size
        self.native_size = native_size
        self.num_workers = num_workers
        self.limits = {"train": train_images, "test": test_images, "val": None}
        self.subset_seed = subset_seed
        self.seed = seed
        self.size = size
        self.augmentation = PRESETS[augmentation if augmented else "none"]
        self.class_names: list[str] = []
        self._images: dict[str, ResizedImages] = {}

    @property
    def evaluation_splits(self) -> list[str]:
        """Names of the splits that are evaluated every epoch, in the order of their loaders."""
        return [name for name in ("test", "val") if name in self._images]

    def setup(self, stage: str | None = None) -> None:  # noqa: ARG002 - Lightning's signature
        """Find the images, once.

        Raises:
            UserError: If files are missing, a class has no training image, or the batch is larger
                than the training set.
        """
        if self._images:
            return
        splits = self.source.load()
        self.class_names = splits.class_names
        parts = {"train": splits.train, "test": splits.test, "val": splits.val}
        self._images = {
            name: ResizedImages(split, self._side(name), self._chosen(name, split))
            for name, split in parts.items()
            if split is not None
        }
        self._check()

    def train_dataloader(self) -> DataLoader[dict[str, Tensor | int]]:
        """Batches in this epoch's order."""
        return self._loader("train", epoch=self._epoch)

    def val_dataloader(self) -> list[DataLoader[dict[str, Tensor | int]]]:
        """One loader for each of :attr:`evaluation_splits`."""
        return [self._loader(name) for name in self.evaluation_splits]

    def test_dataloader(self) -> DataLoader[dict[str, Tensor | int]]:
        """The test images in their own order."""
        return self._loader("test")

    def mapping_batches(self, device: torch.device) -> Iterator[Batch]:
        """For counting: the epoch's training images, cropped as in training, in their own order."""
        for batch in self._loader("train"):
            moved: Batch = {key: batch[key].to(device) for key in Batch.__annotations__}  # type: ignore[assignment]
            yield self._prepared(moved, training=True)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:  # noqa: ARG002
        """Augment on the device."""
        assert self.trainer is not None
        return self._prepared(batch, training=self.trainer.training)

    def _prepared(self, batch: Batch, *, training: bool) -> Batch:
        images = batch["image"]
        if training:
            images = augment(
                images, batch["index"], self.augmentation, self.seed, epoch=self._epoch()
            )
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return {**batch, "image": pixels.div_(255)}

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer is not None else 0

    def _loader(
        self, name: str, epoch: Callable[[], int] | None = None
    ) -> DataLoader[dict[str, Tensor | int]]:
        images = self._images[name]
        trainer = self.trainer
        return DataLoader(
            images,
            batch_sampler=DerivedBatchSampler(
                len(images),
                self.batch_size,
                self.seed,
                epoch,
                rank=trainer.global_rank if trainer is not None else 0,
                world=trainer.world_size if trainer is not None else 1,
            ),
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
        )

    def _side(self, name: str) -> int:
        return self.size + (self.augmentation.margin if name == "train" else 0)

    def _chosen(self, name: str, split: Split) -> NDArray[np.int64]:
        limit = self.limits[name]
        if limit is None or limit == len(split):
            return np.arange(len(split))
        return stratified_subset(split.labels, limit, self.subset_seed, f"dataset.{name}_images")

    def _check(self) -> None:
        problems = Problems()
        train = self._images["train"]
        present = np.unique(train.split.labels[train.chosen])
        absent = [name for label, name in enumerate(self.class_names) if label not in present]
        problems.require(
            not absent, train.split.name, "has classes without images", ", ".join(absent)
        )
        problems.require(
            len(self._images["test"]) > 0, self._images["test"].split.name, "has no images", 0
        )
        problems.require(
            self.batch_size <= len(train),
            "dataset.batch_size",
            f"is larger than the {len(train)} training images",
            self.batch_size,
        )
        problems.raise_if_any()


def stratified_subset(
    labels: NDArray[np.int64], count: int, seed: int, field: str
) -> NDArray[np.int64]:
    """``count`` sample numbers, in order, with the classes in the shares that they have.

    Args:
        labels: class of every sample.
        count: how many to choose; at least one a class, and less than all.
        seed: which ones.
        field: the configuration field, for the message.

    Returns:
        (count,) sample numbers.

    Raises:
        UserError: If ``count`` is out of range.
    """
    from sklearn.model_selection import StratifiedShuffleSplit

    classes = len(np.unique(labels))
    if not classes <= count < len(labels):
        raise problem(
            field, f"must be between {classes} (one a class) and {len(labels)} (all)", count
        )
    # Room for a second part is scikit-learn's demand; the numbers in it are not used.
    rest = min(len(labels) - count, max(classes, 1))
    if rest < classes:
        raise problem(field, f"leaves out fewer images than there are classes ({classes})", count)
    splitter = StratifiedShuffleSplit(1, train_size=count, test_size=rest, random_state=seed)
    chosen, _ = next(splitter.split(np.zeros(len(labels)), labels))
    return np.sort(chosen)
