"""Where images come from. A source answers with splits; a split reads one image at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from smm_lightning.errors import Problems, problem

_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)


class Split(ABC):
    """The images and labels of one part of a dataset.

    Args:
        name: such as ``digits/train``, for messages.
        labels: class number of every image.
    """

    def __init__(self, name: str, labels: Sequence[int]) -> None:
        self.name = name
        self.labels = np.asarray(labels, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.labels)

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

    def __init__(self, name: str, images: NDArray[np.uint8], labels: Sequence[int]) -> None:
        super().__init__(name, labels)
        self.images = images

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

    def __init__(self, name: str, paths: Sequence[Path], labels: Sequence[int]) -> None:
        super().__init__(name, labels)
        self.paths = list(paths)

    def read(self, index: int) -> Image.Image:
        """See :meth:`Split.read`."""
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                # Before resizing: a palette image would otherwise be resized by nearest neighbour.
                return image.convert("RGB")
        except Exception as error:  # PIL's decoders raise many kinds, SyntaxError among them
            raise problem(
                f"{self.name}[{index}] {path}",
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


class Source(ABC):
    """Contract of a source: cheap to build; ``load`` finds the images."""

    @abstractmethod
    def load(self) -> Splits:
        """Find the images.

        Raises:
            UserError: If files are missing or do not fit each other.
        """


class Digits(Source):
    """1,797 handwritten digits of 8 x 8 pixels inside scikit-learn: 1,297 to train, 500 to test.

    The split is stratified and fixed. Source: UCI "Optical Recognition of Handwritten Digits".
    """

    _test_images = 500
    _brightest = 16

    def load(self) -> Splits:
        """See :meth:`Source.load`."""
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images = np.rint(digits.images * (255 / self._brightest)).astype(np.uint8)
        train, test = train_test_split(
            np.arange(len(images)),
            test_size=self._test_images,
            stratify=digits.target,
            random_state=0,
        )
        train, test = np.sort(train), np.sort(test)
        return Splits(
            train=ArraySplit("digits/train", images[train], digits.target[train]),
            test=ArraySplit("digits/test", images[test], digits.target[test]),
            val=None,
            class_names=[str(name) for name in digits.target_names],
        )


class ImageFolder(Source):
    """Any ``<root>/<split>/<class>/<image>``: a user's own images.

    Args:
        root: the folder that holds the splits.
        train: name of the training folder.
        test: name of the test folder.
        val: name of the validation folder; used if it exists.
    """

    def __init__(
        self, root: str | None, train: str = "train", test: str = "test", val: str = "val"
    ) -> None:
        if root is None:
            raise problem(
                "dataset.source.root",
                "is not set",
                cure="Give the folder of your images: dataset.source.root=<folder> "
                "with <folder>/train/<class>/*.jpg and <folder>/test/<class>/*.jpg.",
            )
        self.root = Path(root).expanduser()
        self.folders = {"train": train, "test": test, "val": val}

    def load(self) -> Splits:
        """See :meth:`Source.load`."""
        problems = Problems()
        for split in ("train", "test"):
            problems.require(
                (self.root / self.folders[split]).is_dir(),
                "dataset.source.root",
                f"has no folder '{self.folders[split]}'",
                str(self.root),
                f"Images belong in {self.root / self.folders[split]}/<class>/*.jpg.",
            )
        problems.raise_if_any()
        class_names = _folders_in(self.root / self.folders["train"])
        has_val = (self.root / self.folders["val"]).is_dir()
        return Splits(
            train=self._split("train", class_names),
            test=self._split("test", class_names),
            val=self._split("val", class_names) if has_val else None,
            class_names=class_names,
        )

    def _split(self, split: str, class_names: list[str]) -> FileSplit:
        folder = self.root / self.folders[split]
        unknown = sorted(set(_folders_in(folder)) - set(class_names))
        if unknown:
            raise problem(
                str(folder), "has classes that the training folder lacks", ", ".join(unknown)
            )
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(class_names):
            found = sorted(
                path for path in (folder / name).rglob("*") if path.suffix.lower() in _SUFFIXES
            )
            paths += found
            labels += [label] * len(found)
        return FileSplit(f"imagefolder/{split}", paths, labels)


def _folders_in(folder: Path) -> list[str]:
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
