"""From a source to batches on the device."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
import numpy as np
import torch
from annotated_types import Ge, Le
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities import CombinedLoader
from numpy.typing import NDArray
from typing_extensions import override

from smm_lightning.dataset import account
from smm_lightning.dataset.augmentation import PRESETS, crop_indices
from smm_lightning.dataset.batch import Batch
from smm_lightning.dataset.facts import Facts
from smm_lightning.dataset.image_cache import ImageCache
from smm_lightning.dataset.loaders import Loader, Loaders, Residency
from smm_lightning.dataset.opening import OpenSplits, open_splits, require_trainable
from smm_lightning.dataset.progress import progress_of
from smm_lightning.dataset.resampling import resize
from smm_lightning.dataset.sampler import BatchIndices, DeterministicBatchSampler
from smm_lightning.dataset.selection import Selection
from smm_lightning.dataset.shots import Draw, Shots
from smm_lightning.dataset.sources import Source
from smm_lightning.dataset.subsets import ImagesOrFraction, Positions, stratified, subsets_of
from smm_lightning.device import usable_cpus
from smm_lightning.errors import problem
from smm_lightning.files import at
from smm_lightning.ranges import Count, Fraction, ImageSize, Processes, Seed

_EVALUATION_FACTOR = 4


class ImageDataModule(L.LightningDataModule):
    """Training, validation and test images of one dataset, out of image caches.

    Training images are resized to ``size`` + margin and cropped on the device; test images to
    ``size`` (SMM ``instancewise_vp.py``). The training loop evaluates on ``val``, where there is
    one, and on ``test`` only if that is to be observed.

    Args:
        source: where the images come from.
        batch_size: samples a training step, over all devices.
        evaluation_batch_size: samples a step without gradients (counting, tests), over all devices;
            ``None``: on a GPU four times ``batch_size``, else the same.
        augmentation: ``paper``, ``no_flip`` or ``none``.
        image_cache: the folder of the image caches.
        residency: where the caches lie while they are used: ``device``, ``memory`` (of this
            process), ``disk`` (mapped; the system keeps in memory what fits), or ``auto``: on a GPU
            with twice the room ``device``, else ``disk``.
        num_workers: processes that read ahead; 0 reads in the training process. ``None``: 0, but
            4 for a GPU that does not hold the images itself.
        build_workers: processes that decode a cache; ``None`` takes all CPUs.
        train_images: a stratified part of the training images: a number, or a share below 1.
        test_images: likewise of the test images.
        shots: training images a class, and of ``val`` min(4, shots) beside them.
        draw: which ones; see :class:`Shots`.
        draw_seed: likewise.
        val_fraction: share of each class's training images set aside as ``val``, at least one of
            them, where the dataset has no ``val`` of its own.
        use_val: ``False`` leaves out a ``val`` of the dataset's own (the paper's protocol).
        observe_test: test after every epoch, too, and not after the training alone.
        subset_seed: which part.
        seed: of the order and the augmentation.
        native_size: side of the images where a method keeps them small, in pixels; the pad method's
            configuration reads it here.
        facts: what is known of the dataset.
        size: side of the images, in pixels.
        augmented: ``False`` overrides ``augmentation`` with ``none``.

    Raises:
        UserError: If the parts that are asked for do not fit each other.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: Count,
        augmentation: Literal["paper", "no_flip", "none"],
        evaluation_batch_size: Count | None = None,
        image_cache: str | Path = "image_cache",
        residency: Residency = "auto",
        num_workers: Processes | None = None,
        build_workers: Annotated[int, Ge(1), Le(1024)] | None = None,
        train_images: ImagesOrFraction | None = None,
        test_images: ImagesOrFraction | None = None,
        shots: Count | None = None,
        draw: Draw = "nested",
        draw_seed: Seed = 0,
        val_fraction: Fraction = 0.0,
        use_val: bool = True,
        observe_test: bool = False,
        subset_seed: Seed = 0,
        seed: Seed = 0,
        native_size: ImageSize | None = None,
        facts: Facts | None = None,
        size: int = 224,
        augmented: bool = True,
    ) -> None:
        super().__init__()
        subsets = subsets_of(train_images, test_images, subset_seed)
        if shots is not None and train_images is not None:
            what = "cannot be combined with dataset.train_images"
            raise problem("dataset.shots", what, shots)
        drawn = None if shots is None else Shots(shots, draw, draw_seed)
        self.source = source
        self.name = source.name  # or that of a configuration, which may have several of a source
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size
        self.image_cache = at(image_cache)
        self.residency = residency
        self.num_workers = num_workers
        self.build_workers = build_workers or usable_cpus()
        self.seed = seed
        self.native_size = native_size
        self.observe_test = observe_test
        self.facts = facts
        self.size = size
        self.augmentation = PRESETS[augmentation if augmented else "none"]
        # Small images stay as they are, others are stored as large as they are needed.
        sides = {"train": size + self.augmentation.margin, "test": size, "val": size}
        sizes = {name: source.image_size or side for name, side in sides.items()}
        self.selection = Selection(subsets, drawn, val_fraction, use_val, subset_seed, sizes)
        self.on_batch: Callable[[], None] = _nothing  # called for every batch of any kind
        self._open = OpenSplits()  # by setup

    @property
    def class_names(self) -> list[str]:
        """In the order of the class numbers; known after :meth:`setup`."""
        return self._caches["train"].class_names

    @property
    def overlaps(self) -> list[account.Overlap]:
        """Which images stand in two splits; known after :meth:`setup`."""
        return self._open.overlaps

    @property
    def _caches(self) -> Mapping[str, ImageCache]:
        return self._open.caches

    @property
    def evaluation_splits(self) -> list[str]:
        """Names of the splits that are evaluated every epoch, in the order of their loaders."""
        watched = ("test", "val") if self.observe_test else ("val",)
        return [name for name in watched if name in self._caches]

    @property
    def image_counts(self) -> dict[str, int]:
        """How many images of each split take part."""
        return {name: len(cache) for name, cache in self._caches.items()}

    @override
    def setup(self, stage: str | None = None) -> None:
        """Open the image caches, once; build those that are not there.

        Raises:
            UserError: If files are missing or broken, a class has no training image, or the batch
                is larger than the training set.
        """
        if self._caches:
            return
        opened = open_splits(self.source, self.selection, self.image_cache, self.build_workers)
        require_trainable(opened.caches["train"], self.source.name, self.batch_size)
        self._open = opened

    def stamps(self) -> dict[str, str]:
        """For every split of a run, a text that changes when its images may have changed.

        Names, sizes and times of all files are looked at, and no image is read.

        Raises:
            UserError: If files are missing.
        """
        listings = self.source.listings()
        splits = self.selection.splits(listings)
        return {name: listings[self.selection.origin(name, listings)].stamp for name in splits}

    @property
    def images(self) -> dict[str, dict[str, Any]]:
        """What the images of each split are, for ``result.json`` and checkpoints."""
        return {
            name: account.of_split(name, cache, self._open.listings[name])
            for name, cache in self._caches.items()
        }

    @property
    def preprocessing(self) -> str:
        """What is done to images before the prompt, in words."""
        return f"{self.source.decoding.words}{self.augmentation.words(self.size)}"

    @property
    def taken(self) -> dict[str, Any]:
        """:attr:`images` and :attr:`class_names`, as runs are compared by them."""
        return {"images": self.images, "class_names": self.class_names}

    @override
    def train_dataloader(self) -> Loader:
        """Batches in this epoch's order."""
        return self._loader("train", shuffled=True)

    @override
    def val_dataloader(self) -> list[Loader]:
        """One loader for each of :attr:`evaluation_splits`."""
        return [self._loader(name) for name in self.evaluation_splits]

    @override
    def test_dataloader(self) -> Loader:
        """The test images in their own order."""
        return self._loader("test")

    def mapping_batches(self, device: torch.device) -> Iterator[Batch]:
        """For counting: the epoch's training images, cropped as in training, in their own order."""
        return self.plain_batches("train", device)

    def plain_batches(
        self, split: str, device: torch.device, positions: Positions | None = None
    ) -> Iterator[Batch]:
        """A split in its own order, on ``device``; training images as in this epoch.

        Args:
            split: its name.
            device: where the batches are to be.
            positions: of the samples that are wanted; ``None``: all.
        """
        epoch, _ = self._progress()
        batches: Iterable[dict[str, Any]] = self._loader(split)
        if positions is not None:
            parts = torch.from_numpy(positions).split(self._evaluation_batch())
            reader = self._loader(split).dataset
            batches = (reader[BatchIndices(epoch, part.tolist(), 1.0)] for part in parts)
        for batch in batches:
            yield self._prepared({**move_data_to_device(batch, device), "epoch": epoch})

    def drawn(self, split: str, count: int) -> Positions:
        """Positions of ``count`` samples for pictures and scores: stratified, for all runs alike.

        A file order is no random order: the first samples are often those of the first classes.
        """
        labels = self.labels(split)
        return stratified(labels, min(count, len(labels)), seed=0)

    def names_of(self, split: str, positions: Positions) -> list[str]:
        """What the source calls samples of a split, such as the names of their files."""
        parts = self.source.load().parts()
        part = parts[self.selection.origin(split, parts)]
        return [account.name_of(part, self._caches[split], place) for place in positions.tolist()]

    def twins(self, split: str, other: str) -> tuple[Positions, Positions]:
        """Positions of samples of ``split`` whose pixels stand in ``other``, and there."""
        return account.twins_of(self._caches[split], self._caches[other])

    def labels(self, split: str) -> NDArray[np.int64]:
        """Class number of every sample of a split (N,)."""
        return self._caches[split].labels

    @override
    def teardown(self, stage: str) -> None:
        if "_loaders" in self.__dict__:
            # Ends their workers. Left to the garbage collector, each would be waited for in vain.
            CombinedLoader(self._loaders.made).reset()

    @override
    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> Batch:
        """Resize what is small, crop and flip, on the device."""
        return self._prepared(batch)

    def _prepared(self, batch: dict[str, Any]) -> Batch:
        self.on_batch()  # for whoever watches that the run moves
        split, index = batch["split"], batch["index"]
        resident = self._loaders.resident.get(split)
        images = batch["image"] if resident is None else resident[batch["position"]]
        augmentation = self.augmentation if split == "train" else PRESETS["none"]
        # Crops are taken while resizing, so that only their pixels are computed.
        if augmentation != PRESETS["none"] or images.shape[1] != self.size:
            rows, columns = crop_indices(index, self.size, augmentation, self.seed, batch["epoch"])
            images = resize(images, rows, columns, self.size + augmentation.margin)
        # One channel after the other: on a CPU, what prompts do to images is faster so.
        planes = images.permute(0, 3, 1, 2)
        pixels = planes.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
        weight = batch["loss_weight"]
        return {"image": pixels, "target": batch["target"], "index": index, "loss_weight": weight}

    def _progress(self) -> tuple[int, int]:
        return (0, 0) if self.trainer is None else progress_of(self.trainer)

    @functools.cached_property
    def _loaders(self) -> Loaders:
        return Loaders(self._caches, self._device, self.residency, self.num_workers)

    def _loader(self, split: str, *, shuffled: bool = False) -> Loader:
        rank, world = self._place()
        sampler = functools.partial(
            DeterministicBatchSampler,
            batch_size=self.batch_size if shuffled else self._evaluation_batch(),
            seed=self.seed,
            shuffled=shuffled,
            progress=self._progress if shuffled else lambda: (0, 0),
            rank=rank,
            world=world,
        )
        return self._loaders.loader(split, f"{split} shuffled" if shuffled else split, sampler)

    def _place(self) -> tuple[int, int]:
        """The rank of this process, and how many there are."""
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _evaluation_batch(self) -> int:
        """Without gradients the activations of one layer at a time need room, not of all."""
        factor = _EVALUATION_FACTOR if self._device.type == "cuda" else 1
        return self.evaluation_batch_size or factor * self.batch_size

    def full_batches(self) -> set[int]:
        """Sizes of whole batches on a rank, in training and in evaluation."""
        rank, world = self._place()
        return {-((rank - b) // world) for b in (self.batch_size, self._evaluation_batch())}


def _nothing() -> None:
    """A function that can be pickled, unlike a lambda."""
