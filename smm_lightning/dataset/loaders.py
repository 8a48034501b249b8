"""Batches out of image caches: where the caches lie, who reads them, and in which order."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smm_lightning.dataset.image_cache import ImageCache
from smm_lightning.dataset.sampler import BatchIndices, DeterministicBatchSampler

Residency = Literal["auto", "device", "memory", "disk"]
Loader = DataLoader[dict[str, Any]]
_GPU_WORKERS = 4  # one process decodes nothing, but copies too slowly for a GPU


class CacheReader(Dataset[dict[str, Any]]):
    """Reads whole batches of a split out of its cache.

    Args:
        split: name of the split; it travels with the batch.
        cache: of the split.
        with_images: ``False`` leaves the images out: they are on the device already.
    """

    def __init__(self, split: str, cache: ImageCache, *, with_images: bool) -> None:
        self.split = split
        self.cache = cache
        self.with_images = with_images

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, batch: BatchIndices) -> dict[str, Any]:
        positions = np.array(batch.positions)
        content = {
            "split": self.split,
            "epoch": batch.epoch,
            "loss_weight": batch.loss_weight,
            "position": torch.from_numpy(positions),
            "target": torch.from_numpy(self.cache.labels[positions]),
            "index": torch.from_numpy(self.cache.index[positions]),
        }
        if self.with_images:
            content["image"] = torch.from_numpy(self.cache.images[positions])
        return content


class Loaders:
    """The loaders of a run; each is kept, so that its workers live as long as the run.

    Args:
        caches: by splits.
        device: that trains.
        residency: where the caches lie while they are used.
        num_workers: processes that read ahead; ``None``: by the device.

    Attributes:
        resident: caches on the device (N, h, w, 3) uint8, by splits.
    """

    def __init__(
        self,
        caches: Mapping[str, ImageCache],
        device: torch.device,
        residency: Residency,
        num_workers: int | None,
    ) -> None:
        self.caches = caches
        self.device = device
        self.num_workers = num_workers
        self.resident: dict[str, Tensor] = {}
        self._loaders: dict[str, Loader] = {}
        if residency == "auto":
            size = sum(cache.images.nbytes for cache in caches.values())
            # Twice, because training needs room for other things.
            fits = device.type == "cuda" and 2 * size <= torch.cuda.mem_get_info(device)[0]
            residency = "device" if fits else "disk"
        if residency == "memory":
            for cache in caches.values():
                cache.load()
        elif residency == "device":
            self.resident = {name: cache.to(device) for name, cache in caches.items()}

    def loader(
        self, split: str, key: str, sampler: Callable[[int], DeterministicBatchSampler]
    ) -> Loader:
        """The loader that is known by a key.

        Args:
            split: name of the split.
            key: of the loader.
            sampler: from the number of images to the :class:`DeterministicBatchSampler`.
        """
        if key not in self._loaders:
            cache, resident = self.caches[split], split in self.resident
            workers = self.num_workers
            if workers is None:
                workers = _GPU_WORKERS if self.device.type == "cuda" and not resident else 0
            self._loaders[key] = DataLoader(
                CacheReader(split, cache, with_images=not resident),
                sampler=sampler(len(cache)),
                batch_size=None,  # the sampler makes the batches
                num_workers=workers,
                persistent_workers=workers > 0,
                pin_memory=torch.cuda.is_available(),
            )
        return self._loaders[key]

    @property
    def made(self) -> list[Loader]:
        """All loaders so far."""
        return list(self._loaders.values())
