"""Where images come from. A source answers with splits; a split reads one image at a time."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from smm_lightning.dataset.splits import ArraySplit, FileSplit, Splits
from smm_lightning.errors import Problems, problem

_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
)


class Source(ABC):
    """Contract of a source: cheap to build; ``load`` finds the images.

    Attributes:
        name: for the folders of image banks, and messages.
        image_size: side of the images where all share one and it is small (32 x 32), in pixels.
            Such images stay at that size until they are on the device.
    """

    name: str
    image_size: int | None = None

    @abstractmethod
    def load(self) -> Splits:
        """Find the images.

        Raises:
            UserError: If files are missing or do not fit each other.
        """

    def identities(self) -> dict[str, str]:
        """For every split that exists, a text that changes when its images or labels do.

        Sources that can tell without loading the images override this.

        Raises:
            UserError: If files are missing.
        """
        problems = Problems()
        found = {}
        for name, split in self.load().parts().items():
            with problems.caught():
                found[name] = split.identity
        problems.raise_if_any()
        return found


class Digits(Source):
    """1,797 handwritten digits of 8 x 8 pixels inside scikit-learn: 1,297 to train, 500 to test.

    The split is stratified and fixed. Source: UCI "Optical Recognition of Handwritten Digits".
    """

    name = "digits"
    image_size = 8
    _test_images = 500
    _brightest = 16

    def identities(self) -> dict[str, str]:
        """See :meth:`Source.identities`."""
        return {"train": "digits/train", "test": "digits/test"}

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

    Raises:
        UserError: If ``root`` is not set.
    """

    name = "imagefolder"

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
        class_names = folders_in(self.root / self.folders["train"])
        has_val = (self.root / self.folders["val"]).is_dir()
        return Splits(
            train=self._split("train", class_names),
            test=self._split("test", class_names),
            val=self._split("val", class_names) if has_val else None,
            class_names=class_names,
        )

    def _split(self, split: str, class_names: list[str]) -> FileSplit:
        folder = self.root / self.folders[split]
        unknown = sorted(set(folders_in(folder)) - set(class_names))
        if unknown:
            raise problem(
                str(folder), "has classes that the training folder lacks", ", ".join(unknown)
            )
        return images_by_class(f"imagefolder/{split}", folder, class_names)


def folders_in(folder: Path) -> list[str]:
    """Names of the visible folders in ``folder``, sorted."""
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def images_by_class(name: str, folder: Path, class_folders: list[str]) -> FileSplit:
    """The images of ``<folder>/<class folder>``, however deep, in sorted order.

    Args:
        name: of the split.
        folder: that holds the class folders.
        class_folders: in the order of the class numbers.
    """
    paths: list[Path] = []
    labels: list[int] = []
    for label, class_folder in enumerate(class_folders):
        found = sorted(
            path for path in (folder / class_folder).rglob("*") if path.suffix.lower() in _SUFFIXES
        )
        paths += found
        labels += [label] * len(found)
    return FileSplit(name, paths, labels)
