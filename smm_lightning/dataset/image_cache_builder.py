"""Building an image cache: every image decoded once, by processes, and renamed when it is whole."""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smm_lightning.dataset.decoding import pixel_hash
from smm_lightning.dataset.image_cache import (
    CHUNK,
    FACTS,
    IMAGES,
    VERSION,
    DamagedCacheError,
    ImageCache,
    log,
)
from smm_lightning.dataset.splits import Split
from smm_lightning.dataset.subsets import Positions
from smm_lightning.errors import Problems, UserError
from smm_lightning.files import sync_folder, write_atomically, writing

_SHOWN = 20  # broken images that a message lists
_WORTH_PROCESSES = 512  # fewer images are decoded before processes have started
_WORTH_MENTIONING = 2_000
_PATIENCE = 0.1  # seconds before a waiting process says so


@dataclass(frozen=True)
class Content:
    """What a cache is to hold.

    Args:
        split: with the images.
        chosen: positions of those that take part.
        class_names: in the order of the class numbers.
        size: side to which PIL resizes the images (bilinear, as published), in pixels.
    """

    split: Split
    chosen: Positions
    class_names: list[str]
    size: int

    def pixels(self, position: int) -> tuple[NDArray[np.uint8], bytes]:
        """Chosen image ``position``, (size, size, 3), and a hash of its pixels in full size.

        Raises:
            UserError: If it cannot be decoded.
        """
        image = self.split.read(int(self.chosen[position]))
        full_size = pixel_hash(image)
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(image), full_size

    def digest(self, hashes: Sequence[bytes]) -> str:
        """A text that is equal for equal images: relative names, classes, sizes and pixels.

        Args:
            hashes: of the chosen images.
        """
        digest = hashlib.sha256()
        for number, pixels in zip(self.chosen.tolist(), hashes, strict=True):
            label = self.class_names[self.split.labels[number]]
            name = f"{self.split.name_of(number)}\0{label}\0"
            digest.update(name.encode(errors="surrogateescape") + pixels)
        return digest.hexdigest()


def open_or_build(folder: Path, content: Callable[[], Content], workers: int) -> ImageCache:
    """The cache in ``folder``; built first if it is not there or damaged.

    Processes that want the same cache at once wait for the first of them.

    Args:
        folder: of the cache; its name must change with what it holds.
        content: what it is to hold; asked only if it is built.
        workers: processes that decode.

    Raises:
        UserError: If images are broken (all are listed), or the cache cannot be written.
    """
    try:
        return ImageCache(folder)
    except (FileNotFoundError, NotADirectoryError, DamagedCacheError):
        pass
    with writing("paths.image_cache", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(folder.name + ".lock"))
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            log.warning("Another process builds the image cache %s: waiting for it.", folder.name)
            lock.acquire()
    try:  # the system frees the lock when its process dies
        return _open_or_build(folder, content, workers)
    finally:
        lock.release()


def _open_or_build(folder: Path, content: Callable[[], Content], workers: int) -> ImageCache:
    try:
        return ImageCache(folder)
    except FileNotFoundError:
        pass
    except DamagedCacheError as error:
        log.warning("The image cache %s is damaged (%s) and built anew.", folder, error)
        with writing("paths.image_cache", folder):
            discarded = folder.with_name(folder.name + ".discarded")
            folder.rename(discarded)
            shutil.rmtree(discarded, ignore_errors=True)
    made = content()
    with writing("paths.image_cache", folder):
        _build(folder, made, workers)
    return ImageCache(folder)


def _build(folder: Path, content: Content, workers: int) -> None:
    """Decode, write, and make a cache of it when all is there."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a build that was killed
    partial.mkdir()
    shape = (len(content.chosen), content.size, content.size, 3)
    broken = Problems()
    checksums: list[int] = []
    hashes: list[bytes] = []
    title = f"{content.split.name} at {content.size} x {content.size}"
    try:
        with (partial / IMAGES).open("wb") as images:
            _take_room(images, int(np.prod(shape)))
            for chunk in _chunks(content, workers, title):
                broken.lines += chunk.problems
                pixels = chunk.pixels.numpy().data
                checksums.append(zlib.crc32(pixels))
                hashes += chunk.hashes
                images.write(pixels)
            _raise_for(broken)
            images.flush()
            os.fsync(images.fileno())
        facts = {
            "version": VERSION,
            "shape": shape,
            "labels": content.split.labels[content.chosen].tolist(),
            "index": content.chosen.tolist(),
            "class_names": content.class_names,
            "checksums": checksums,
            "digest": content.digest(hashes),
            "hashes": b"".join(one[:8] for one in hashes).hex(),
            "written_ns": (partial / IMAGES).stat().st_mtime_ns,
        }
        text = json.dumps(facts)
        sealed = {"checksum": zlib.crc32(text.encode()), "facts": text}
        write_atomically(partial / FACTS, json.dumps(sealed).encode())
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    partial.rename(folder)
    sync_folder(folder.parent)


def _take_room(images: BinaryIO, size: int) -> None:
    """A disk that is too small is found now, and not after an hour."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(images.fileno(), 0, max(size, 1))
    images.truncate(size)


@dataclass(frozen=True)
class _Chunk:
    """Some images: their pixels, the hashes of these, and a line for each that is broken."""

    pixels: Tensor
    hashes: list[bytes]
    problems: list[str]


class _Chunks(Dataset[_Chunk]):
    """Decodes a chunk of images."""

    def __init__(self, content: Content) -> None:
        self.content = content

    def __len__(self) -> int:
        return (len(self.content.chosen) + CHUNK - 1) // CHUNK

    def __getitem__(self, number: int) -> _Chunk:
        positions = range(number * CHUNK, min((number + 1) * CHUNK, len(self.content.chosen)))
        size = self.content.size
        pixels = np.empty((len(positions), size, size, 3), dtype=np.uint8)
        hashes = [b""] * len(positions)
        broken = Problems()
        for row, position in enumerate(positions):
            with broken.caught():
                pixels[row], hashes[row] = self.content.pixels(position)
        return _Chunk(torch.from_numpy(pixels), hashes, broken.lines)


def _chunks(content: Content, workers: int, title: str) -> Iterator[_Chunk]:
    """Decode all chunks in order, by several processes, under a progress bar."""
    images, chunks = len(content.chosen), _Chunks(content)
    workers = min(workers, len(chunks)) if images >= _WORTH_PROCESSES else 0
    loader: Any = DataLoader(chunks, batch_size=None, num_workers=workers)
    if images < _WORTH_MENTIONING:
        yield from loader
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        log.warning("Decoding %s images of %s, once for all runs.", f"{images:,}", title)
    yield from track(
        loader, f"Decoding {title}", len(chunks), console=console, disable=not console.is_terminal
    )


def _raise_for(broken: Problems) -> None:
    if len(broken.lines) > _SHOWN:
        more = f"... and {len(broken.lines) - _SHOWN} more broken images"
        raise UserError("\n".join([*broken.lines[:_SHOWN], more]))
    broken.raise_if_any()


def broken_images(split: Split, workers: int) -> list[str]:
    """Decode every image of a split and answer a line for each that is broken."""
    content = Content(split, np.arange(len(split)), [], size=1)
    return [line for chunk in _chunks(content, workers, split.name) for line in chunk.problems]
