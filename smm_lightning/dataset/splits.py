"""The images and labels of one part of a dataset, read one at a time."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from smm_lightning.dataset.decoding import AS_PUBLISHED, Decoding, decoded
from smm_lightning.errors import problem

NO_OBJECT = "\0"  # begins the group of an image that is alone


class Split(ABC):
    """Images and labels of a part.

    Args:
        name: such as ``digits/train``, for messages.
        labels: class number of every image.
        groups: the object that every image shows (N,), where images come in groups.
        left_out: how many files were not taken, by reason.

    Attributes:
        folder: that the images were found in, where its name says what they are.
    """

    folder: str | None = None

    def __init__(
        self,
        name: str,
        labels: Sequence[int] | NDArray[np.int64],
        *,
        groups: NDArray[np.str_] | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name
        self.labels = np.asarray(labels, dtype=np.int64)
        self.groups = groups
        self.left_out = dict(left_out or {})

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def stamp(self) -> str:
        """A text that changes when the images or labels may have: names, sizes, times."""

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Image ``index`` as RGB.

        Raises:
            UserError: If it cannot be decoded; the message names it.
        """

    def name_of(self, index: int) -> str:
        """What image ``index`` is called in its split, wherever the split lies."""
        return str(index)

    def objects(self, chosen: NDArray[np.int64] | None = None) -> set[str]:
        """The objects that the images show, or those at ``chosen``, where they come in groups."""
        if self.groups is None:
            return set()
        groups = self.groups if chosen is None else self.groups[chosen]
        return {name for name in groups.tolist() if not name.startswith(NO_OBJECT)}


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
    @override
    def stamp(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.images).data)
        digest.update(self.labels.data)
        return digest.hexdigest()

    @override
    def read(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index]).convert("RGB")


class FileSplit(Split):
    """Images in files, decoded when they are read.

    Args:
        name: for messages.
        root: the folder that holds them.
        names: of the files, relative to ``root``.
        labels: class number of every image.
        decoding: from files to RGB.
        more: see :class:`Split`.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        names: Sequence[str],
        labels: Sequence[int] | NDArray[np.int64],
        decoding: Decoding = AS_PUBLISHED,
        **more: Any,
    ) -> None:
        super().__init__(name, labels, **more)
        self.root = root
        self.names = list(names)
        self.decoding = decoding

    @property
    @override
    def stamp(self) -> str:
        """See :attr:`Split.stamp`; a :class:`UserError` if files are missing."""
        groups = b"" if self.groups is None else self.groups.tobytes()
        more = self.labels.tobytes(), groups, self.decoding
        return stamp(self.name, self.root, self.names, *more)

    @override
    def read(self, index: int) -> Image.Image:
        path = self.root / self.names[index]
        return decoded(path, f"{self.name}[{index}] {path}", self.decoding)

    @override
    def name_of(self, index: int) -> str:
        return self.names[index]


def stamp(name: str, root: Path, names: Iterable[str], *more: object) -> str:
    """A text that changes when one of the files is replaced: relative names, sizes and times.

    Args:
        name: of the split, for the message.
        root: the folder that holds the files.
        names: of the files, relative to ``root``.
        more: what else counts.

    Raises:
        UserError: If files are missing: how many, and the first of them.
    """
    digest = hashlib.sha256()
    for part in more:
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
    missing = []
    count = 0
    for file in names:
        count += 1
        try:
            status = os.stat(f"{root}/{file}")  # noqa: PTH116 - fifty thousand times
        except OSError:
            missing.append(root / file)
            continue
        # Archives set the time of writing; when the system took note of a file tells them apart.
        facts = f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0"
        digest.update(facts.encode(errors="surrogateescape"))
    if missing:
        raise problem(
            name,
            f"{len(missing)} of {count} files are missing, the first is {missing[0]}",
            hint="`smm prepare` says which files belong where.",
        )
    return digest.hexdigest()


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
        parts = {"train": self.train, "test": self.test, "val": self.val}
        return {name: split for name, split in parts.items() if split is not None}
