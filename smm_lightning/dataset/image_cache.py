"""Image caches: splits decoded and resized once, shared by all runs.

A cache is a folder with ``images.u8``, the pixels (N, h, w, 3), and ``cache.json``, all else.
It is built in a folder of another name and renamed when it is complete, so a cache is there as a
whole or not at all.
"""

import json
import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

VERSION = 4  # raise it when pixels or format change: caches of another version are built anew
CHUNK = 64  # images that a worker decodes at a time
IMAGES, FACTS = "images.u8", "cache.json"
_QUICKLY_VERIFIED = 256 << 20  # bytes; a tenth of a second

log = logging.getLogger(__name__)


class DamagedCacheError(Exception):
    """A cache that is not what was once written."""


class ImageCache:
    """A cache that is opened for reading.

    Args:
        folder: of the cache.

    Attributes:
        images: (N, h, w, 3) uint8, mapped: pages are read when they are used, and all processes of
            a machine share them.
        labels: (N,) int64.
        index: (N,) int64, the samples' numbers in their split.
        class_names: in the order of the class numbers.
        digest: see :meth:`Content.digest`.
        hashes: (N,) uint64, equal for images with equal pixels.

    Raises:
        FileNotFoundError: If there is none.
        DamagedCacheError: If it is truncated or altered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        facts = _read_facts(folder / FACTS)
        shape = tuple(facts["shape"])
        file = folder / IMAGES
        status, expected = file.stat(), int(np.prod(shape))
        if status.st_size != expected:
            message = f"{IMAGES} has {status.st_size} of {expected} bytes"
            raise DamagedCacheError(message)
        mapped = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
        # The class memmap itself slows indexing down; its view is the same memory.
        self.images: NDArray[np.uint8] = mapped.view(np.ndarray)
        self.labels = np.array(facts["labels"], dtype=np.int64)
        self.index = np.array(facts["index"], dtype=np.int64)
        self.class_names: list[str] = facts["class_names"]
        self.checksums: list[int] = facts["checksums"]
        self.digest: str = facts["digest"]
        self.hashes = np.frombuffer(bytes.fromhex(facts["hashes"]), dtype=np.uint64)
        # Reading gigabytes at every start would cost more than it finds: while a large file has
        # the time at which it was completed, nobody wrote to it.
        if status.st_mtime_ns != facts["written_ns"] or expected <= _QUICKLY_VERIFIED:
            self.verify()

    def __reduce__(self) -> tuple[type["ImageCache"], tuple[Path]]:
        return ImageCache, (self.folder,)

    def __len__(self) -> int:
        return len(self.labels)

    def verify(self) -> None:
        """Compare all pixels with their checksums.

        Raises:
            DamagedCacheError: If they differ.
        """
        for number, expected in enumerate(self.checksums):
            chunk = self.images[number * CHUNK : (number + 1) * CHUNK]
            if zlib.crc32(chunk.data) != expected:
                message = f"{IMAGES} was altered after it was written (chunk {number})"
                raise DamagedCacheError(message)

    def load(self) -> None:
        """Read all pixels into the memory of this process."""
        self.images = np.array(self.images)

    def to(self, device: torch.device) -> Tensor:
        """All pixels on a device, (N, h, w, 3) uint8."""
        return torch.from_numpy(np.array(self.images)).to(device)


def _read_facts(file: Path) -> dict[str, Any]:
    try:
        sealed = json.loads(file.read_bytes())
        text = sealed["facts"]
        intact = zlib.crc32(text.encode()) == sealed["checksum"]
    except (ValueError, KeyError, TypeError) as error:
        message = f"{FACTS} cannot be read"
        raise DamagedCacheError(message) from error
    if not intact:
        message = f"{FACTS} was altered"
        raise DamagedCacheError(message)
    facts: dict[str, Any] = json.loads(text)
    return facts
