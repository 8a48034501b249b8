"""The images and labels of one part of a dataset, read one at a time."""

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smm_lightning.errors import UserError, problem


class Split(ABC):
    """Images and labels of a part.

    Args:
        name: such as ``digits/train``, for messages.
        labels: class number of every image.
    """

    def __init__(self, name: str, labels: Sequence[int] | NDArray[np.int64]) -> None:
        self.name = name
        self.labels = np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def identity(self) -> str:
        """A text that changes when the images or labels do."""

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Image ``index`` as RGB.

        Raises:
            UserError: If it cannot be decoded; the message names it.
        """


class ArraySplit(Split):
    """Images that lie in memory.

    Args:
        name: for messages.
        images: (N, h, w) or (N, h, w, 3) uint8.
        labels: class number of every image.
    """

    def __init__(
        self, name: str, images: NDArray[np.uint8], labels: Sequence[int] | NDArray[np.int64]
    ) -> None:
        super().__init__(name, labels)
        self.images = images

    @property
    def identity(self) -> str:
        """See :attr:`Split.identity`."""
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.data)
        return digest.hexdigest()

    def read(self, index: int) -> Image.Image:
        """See :meth:`Split.read`."""
        return Image.fromarray(self.images[index]).convert("RGB")


class FileSplit(Split):
    """Images in files, decoded when they are read.

    Args:
        name: for messages.
        paths: of the images.
        labels: class number of every image.
    """

    def __init__(
        self, name: str, paths: Sequence[Path], labels: Sequence[int] | NDArray[np.int64]
    ) -> None:
        super().__init__(name, labels)
        self.paths = list(paths)

    @property
    def identity(self) -> str:
        """See :attr:`Split.identity`; a :class:`UserError` if files are missing."""
        return stamp(self.name, self.paths, self.labels.tobytes())

    def read(self, index: int) -> Image.Image:
        """See :meth:`Split.read`."""
        path = self.paths[index]
        return decoded(path, f"{self.name}[{index}] {path}")


def stamp(name: str, paths: Iterable[Path], extra: bytes = b"") -> str:
    """A text that changes when one of the files is replaced: names, sizes and times.

    Args:
        name: of the split, for the message.
        paths: of the files.
        extra: what else counts.

    Raises:
        UserError: If files are missing: how many, and the first of them.
    """
    digest = hashlib.sha256(extra)
    missing = []
    count = 0
    for path in paths:
        count += 1
        try:
            found = path.stat()
        except OSError:
            missing.append(path)
            continue
        digest.update(f"{path.name}\0{found.st_size}\0{found.st_mtime_ns}\0".encode())
    if missing:
        raise problem(
            name,
            f"{len(missing)} of {count} files are missing, the first is {missing[0]}",
            cure="`python -m smm_lightning.prepare` says which files belong where.",
        )
    return digest.hexdigest()


def decoded(file: Path | bytes, where: str) -> Image.Image:
    """An encoded image as RGB, decoded to its last row.

    Args:
        file: its path or its content.
        where: the words that name it in a message.

    Raises:
        UserError: If it cannot be decoded, or holds more than 8 bits a channel.
    """
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            if image.mode.startswith(("I", "F")):  # convert() would clip it to white
                raise problem(
                    where,
                    "has more than 8 bits a channel",
                    image.mode,
                    "Convert the file to 8 bits: which range is black to white is your choice.",
                )
            # Before resizing: a palette image would otherwise be resized by nearest neighbour.
            return image.convert("RGB")
    except UserError:
        raise
    except Exception as error:  # PIL's decoders raise many kinds, SyntaxError among them
        raise problem(
            where,
            f"is no readable image ({type(error).__name__})",
            cure="Replace or remove the file.",
        ) from error


@dataclass(frozen=True)
class Splits:
    """What a source answers.

    Args:
        train: training images.
        test: test images.
        val: images for choosing the best epoch, where the dataset has them.
        class_names: in the order of the class numbers.
    """

    train: Split
    test: Split
    val: Split | None
    class_names: list[str]

    def parts(self) -> dict[str, Split]:
        """The splits that exist, by name."""
        found = {"train": self.train, "test": self.test, "val": self.val}
        return {name: split for name, split in found.items() if split is not None}
