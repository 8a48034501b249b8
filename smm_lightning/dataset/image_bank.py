"""Image banks: splits decoded and resized once, shared by all runs.

A bank is a folder with ``images.u8``, the pixels (N, h, w, 3), and ``bank.json``, everything else.
It is built in a folder of another name and renamed when it is complete, so a bank is there as a
whole or not at all. While it is built, ``progress`` lists the chunks that are written, each with
its checksum: a build that was interrupted goes on where it stopped.
"""

import json
import logging
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

from smm_lightning.dataset.splits import Split
from smm_lightning.dataset.subsets import Positions
from smm_lightning.errors import Problems, UserError
from smm_lightning.files import remove_unfinished, sync_folder, write_atomically, writing

VERSION = 1  # raise it when pixels or format change: banks of another version are built anew
_CHUNK = 64  # images that a worker decodes at a time
_IMAGES, _FACTS, _PROGRESS = "images.u8", "bank.json", "progress"
_SHOWN = 20  # broken images that a message lists
_WORTH_PROCESSES = 512  # fewer images are decoded before processes have started
_WORTH_MENTIONING = 2_000
_QUICKLY_VERIFIED = 256 << 20  # bytes; a tenth of a second
_PATIENCE = 0.1  # seconds before a waiting process says so

log = logging.getLogger(__name__)


class DamagedBankError(Exception):
    """A bank that is not what was once written."""


@dataclass(frozen=True)
class Content:
    """What a bank is to hold.

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

    def pixels(self, position: int) -> NDArray[np.uint8]:
        """Chosen image ``position``, (size, size, 3).

        Raises:
            UserError: If it cannot be decoded.
        """
        image = self.split.read(int(self.chosen[position]))
        if image.size != (self.size, self.size):
            image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(image)


class ImageBank:
    """A bank that is opened for reading.

    Args:
        folder: of the bank.

    Attributes:
        images: (N, h, w, 3) uint8, mapped: pages are read when they are used, and all processes of
            a machine share them.
        labels: (N,) int64.
        index: (N,) int64, the samples' numbers in their split.
        class_names: in the order of the class numbers.

    Raises:
        FileNotFoundError: If there is none.
        DamagedBankError: If it is truncated or altered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        facts = _read_facts(folder / _FACTS)
        shape = tuple(facts["shape"])
        file = folder / _IMAGES
        found, expected = file.stat(), int(np.prod(shape))
        if found.st_size != expected:
            message = f"{_IMAGES} has {found.st_size} of {expected} bytes"
            raise DamagedBankError(message)
        mapped = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
        # The class memmap itself slows indexing down; its view is the same memory.
        self.images: NDArray[np.uint8] = mapped.view(np.ndarray)
        self.labels = np.array(facts["labels"], dtype=np.int64)
        self.index = np.array(facts["index"], dtype=np.int64)
        self.class_names: list[str] = facts["class_names"]
        self.checksums: list[int] = facts["checksums"]
        # Reading gigabytes at every start would cost more than it finds: while a large file has
        # the time at which it was completed, nobody wrote to it.
        if found.st_mtime_ns != facts["written_ns"] or expected <= _QUICKLY_VERIFIED:
            self.verify()

    def __reduce__(self) -> tuple[type["ImageBank"], tuple[Path]]:
        return ImageBank, (self.folder,)

    def __len__(self) -> int:
        return len(self.labels)

    def verify(self) -> None:
        """Compare all pixels with their checksums.

        Raises:
            DamagedBankError: If they differ.
        """
        for number, expected in enumerate(self.checksums):
            chunk = self.images[number * _CHUNK : (number + 1) * _CHUNK]
            if zlib.crc32(chunk.data) != expected:
                message = f"{_IMAGES} was altered after it was written (chunk {number})"
                raise DamagedBankError(message)

    def load(self) -> None:
        """Read all pixels into the memory of this process."""
        self.images = np.array(self.images)

    def to(self, device: torch.device) -> Tensor:
        """All pixels on a device, (N, h, w, 3) uint8."""
        return torch.from_numpy(np.array(self.images)).to(device)


def open_or_build(folder: Path, content: Callable[[], Content], workers: int) -> ImageBank:
    """The bank in ``folder``; built first if it is not there or damaged.

    Processes that want the same bank at once wait for the first of them.

    Args:
        folder: of the bank; its name must change with what it holds.
        content: what it is to hold; asked only if it is built.
        workers: processes that decode.

    Raises:
        UserError: If images are broken (all are listed), or the bank cannot be written.
    """
    try:
        return ImageBank(folder)
    except (FileNotFoundError, NotADirectoryError, DamagedBankError):
        pass
    with writing("paths.banks", folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(folder.name + ".lock"))
        try:
            lock.acquire(timeout=_PATIENCE)
        except Timeout:
            log.warning("Another process builds the image bank %s: waiting for it.", folder.name)
            lock.acquire()
    try:  # the system frees the lock when its process dies
        return _open_or_build(folder, content, workers)
    finally:
        lock.release()


def _open_or_build(folder: Path, content: Callable[[], Content], workers: int) -> ImageBank:
    try:
        return ImageBank(folder)
    except FileNotFoundError:
        pass
    except DamagedBankError as error:
        log.warning("The image bank %s is damaged (%s) and built anew.", folder, error)
        with writing("paths.banks", folder):
            discarded = folder.with_name(folder.name + ".discarded")
            folder.rename(discarded)
            shutil.rmtree(discarded, ignore_errors=True)
    build = _Build(folder, content(), workers)
    with writing("paths.banks", folder):
        build.run()
    return ImageBank(folder)


class _Build:
    """Decodes, writes, and makes a bank of it when all is there."""

    def __init__(self, folder: Path, content: Content, workers: int) -> None:
        self.folder = folder
        self.partial = folder.with_name(folder.name + ".partial")
        self.content = content
        self.workers = workers
        self.shape = (len(content.chosen), content.size, content.size, 3)

    def run(self) -> None:
        self.partial.mkdir(exist_ok=True)
        remove_unfinished(self.partial)
        broken = Problems()
        with self._opened() as images:
            done = self._checksums(images)
            missing = [n for n in _numbers(self.content) if n not in done]
            with (self.partial / _PROGRESS).open("a") as progress:
                for number, pixels in self._decoded(missing, broken):
                    images.seek(number * _CHUNK * self._bytes_per_image)
                    images.write(pixels)
                    images.flush()
                    done[number] = zlib.crc32(pixels)
                    print(number, done[number], file=progress, flush=True)
            _raise_for(broken)
            os.fsync(images.fileno())
        self._write_facts([done[number] for number in sorted(done)])
        (self.partial / _PROGRESS).unlink()
        self.partial.rename(self.folder)
        sync_folder(self.folder.parent)

    @property
    def _bytes_per_image(self) -> int:
        return int(np.prod(self.shape[1:]))

    def _opened(self) -> BinaryIO:
        """The file of pixels, with all its room taken: a full disk is found now."""
        file = self.partial / _IMAGES
        fresh = not file.exists()
        images = file.open("w+b" if fresh else "r+b")
        size = self.shape[0] * self._bytes_per_image
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(images.fileno(), 0, max(size, 1))
            images.truncate(size)
        except OSError:
            images.close()
            if fresh:
                file.unlink()
            raise
        return images

    def _checksums(self, images: BinaryIO) -> dict[int, int]:
        """The chunks that an earlier build wrote and that are still as it wrote them."""
        found: dict[int, int] = {}
        file = self.partial / _PROGRESS
        for line in file.read_text().splitlines() if file.exists() else []:
            words = line.split()
            if len(words) == 2 and all(word.isdecimal() for word in words):  # noqa: PLR2004
                number, checksum = map(int, words)
                images.seek(number * _CHUNK * self._bytes_per_image)
                if zlib.crc32(images.read(self._chunk_bytes(number))) == checksum:
                    found[number] = checksum
        return found

    def _chunk_bytes(self, number: int) -> int:
        count = min(_CHUNK, self.shape[0] - number * _CHUNK)
        return count * self._bytes_per_image

    def _decoded(self, missing: list[int], broken: Problems) -> Iterator[tuple[int, bytes]]:
        """Number and pixels of the missing chunks, but for those with broken images."""
        title = f"{self.content.split.name} at {self.content.size} x {self.content.size}"
        for number, pixels, problems in _chunks(self.content, missing, self.workers, title):
            broken.found += problems
            if not problems:
                yield number, pixels.numpy().tobytes()

    def _write_facts(self, checksums: list[int]) -> None:
        facts = {
            "version": VERSION,
            "shape": self.shape,
            "labels": self.content.split.labels[self.content.chosen].tolist(),
            "index": self.content.chosen.tolist(),
            "class_names": self.content.class_names,
            "checksums": checksums,
            "written_ns": (self.partial / _IMAGES).stat().st_mtime_ns,
        }
        text = json.dumps(facts)
        sealed = {"checksum": zlib.crc32(text.encode()), "facts": text}
        write_atomically(self.partial / _FACTS, json.dumps(sealed).encode())


class _Chunks(Dataset[tuple[int, Tensor, list[str]]]):
    """Decodes a chunk: its number, its pixels, and the problems of its broken images."""

    def __init__(self, content: Content) -> None:
        self.content = content

    def __getitem__(self, number: int) -> tuple[int, Tensor, list[str]]:
        positions = range(number * _CHUNK, min((number + 1) * _CHUNK, len(self.content.chosen)))
        size = self.content.size
        pixels = np.empty((len(positions), size, size, 3), dtype=np.uint8)
        broken = Problems()
        for row, position in enumerate(positions):
            with broken.caught():
                pixels[row] = self.content.pixels(position)
        return number, torch.from_numpy(pixels), broken.found


def _read_facts(file: Path) -> dict[str, Any]:
    try:
        sealed = json.loads(file.read_bytes())
        text = sealed["facts"]
        intact = zlib.crc32(text.encode()) == sealed["checksum"]
    except (ValueError, KeyError, TypeError) as error:
        message = f"{_FACTS} cannot be read"
        raise DamagedBankError(message) from error
    if not intact:
        message = f"{_FACTS} was altered"
        raise DamagedBankError(message)
    facts: dict[str, Any] = json.loads(text)
    return facts


def _numbers(content: Content) -> range:
    """Numbers of all chunks."""
    return range(-(-len(content.chosen) // _CHUNK))


def _chunks(
    content: Content, numbers: Sequence[int], workers: int, title: str
) -> Iterator[tuple[int, Tensor, list[str]]]:
    """Decode chunks as :class:`_Chunks` does, by several processes, under a progress bar."""
    images = len(content.chosen)
    workers = min(workers, len(numbers)) if images >= _WORTH_PROCESSES else 0
    chunks: Any = DataLoader(
        _Chunks(content), sampler=numbers, batch_size=None, num_workers=workers
    )
    if images < _WORTH_MENTIONING:
        yield from chunks
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        log.warning("Decoding %s images of %s, once for all runs.", f"{images:,}", title)
    yield from track(
        chunks, f"Decoding {title}", len(numbers), console=console, disable=not console.is_terminal
    )


def _raise_for(broken: Problems) -> None:
    if len(broken.found) > _SHOWN:
        more = f"... and {len(broken.found) - _SHOWN} more broken images"
        raise UserError("\n".join([*broken.found[:_SHOWN], more]))
    broken.raise_if_any()


def broken_images(split: Split, workers: int) -> list[str]:
    """Decode every image of a split and answer a line for each that is broken."""
    content = Content(split, np.arange(len(split)), [], size=1)
    chunks = _chunks(content, _numbers(content), workers, split.name)
    return [line for _, _, problems in chunks for line in problems]
