"""CIFAR-10, CIFAR-100, SVHN and GTSRB from the files that torchvision keeps."""

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from typing_extensions import override

from smm_lightning.dataset.image_files import visible_folders
from smm_lightning.dataset.image_folder import images_by_class
from smm_lightning.dataset.sources import Listing, Source
from smm_lightning.dataset.splits import ArraySplit, FileSplit, Splits, stamp
from smm_lightning.errors import Problems, problem
from smm_lightning.files import at

_GTSRB_FINAL = (
    "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
    "GTSRB_Final_Training_Images.zip"
)

_TRAINING_SETS = {"final": "GTSRB/Final_Training/Images", "torchvision": "GTSRB/Training"}
_TRACK = re.compile(r"^(\d+)_")  # of a training file, within its class
# Names of the signs in the order of the class numbers, a line each.
_SIGNS = Path(__file__).with_name("traffic_signs.txt").read_text(encoding="utf-8").splitlines()
_CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "svhn": "SVHN", "gtsrb": "GTSRB"}


def torchvision_class(name: str) -> Any:
    """The class of ``torchvision.datasets`` for a dataset."""
    from torchvision import datasets

    return getattr(datasets, _CLASSES[name])


class TorchvisionArrays(Source):
    """CIFAR-10, CIFAR-100 or SVHN: small images of one size in a few files.

    The files lie in ``<root>/<name>`` or ``<root>``, as torchvision writes them. It checks their
    checksums before it reads them.

    Args:
        name: of the dataset.
        root: the folder of all data.
        images_url: where the files come from.
    """

    image_size = 32

    def __init__(
        self, name: Literal["cifar10", "cifar100", "svhn"], root: str, *, images_url: str
    ) -> None:
        self.name = name
        self.images_url = images_url
        self.folders = [at(root) / name, at(root)]

    @override
    def is_there(self) -> bool:
        return self._existing_folder() is not None

    @override
    def listings(self, load: Callable[[], Splits] | None = None) -> dict[str, Listing]:
        folder = self._folder()
        return {
            split: Listing(stamp(f"{self.name}/{split}", folder, self._files(split)))
            for split in ("train", "test")
        }

    @override
    def load(self) -> Splits:
        folder = self._folder()
        try:
            train, test = (self._open(folder, split) for split in ("train", "test"))
        except RuntimeError as error:  # torchvision: not found or corrupted
            raise problem(
                self.name,
                f"a file in {folder} has another checksum than the original",
                hint=_hint(self.name, self.images_url),
            ) from error
        return Splits(
            train=self._split("train", train),
            test=self._split("test", test),
            val=None,
            class_names=list(getattr(train, "classes", map(str, range(10)))),
        )

    def download(self) -> None:
        """Fetch what is missing into ``<root>/<name>``, by torchvision."""
        for split in ("train", "test"):
            self._open(self.folders[0], split, download=True)

    def _existing_folder(self) -> Path | None:
        """The first folder with all files."""
        files = self._all_files()
        there = (f for f in self.folders if all((f / file).is_file() for file in files))
        return next(there, None)

    def _folder(self) -> Path:
        """The first folder with all files, or an error."""
        if (folder := self._existing_folder()) is not None:
            return folder
        files = self._all_files()
        missing = [file for file in files if not (self.folders[0] / file).is_file()]
        raise problem(
            self.name,
            f"{len(missing)} of {len(files)} files are missing in {self.folders[0]}: "
            + ", ".join(missing),
            hint=_hint(self.name, self.images_url),
        )

    def _all_files(self) -> list[str]:
        return list(dict.fromkeys([*self._files("train"), *self._files("test")]))

    def _files(self, split: str) -> list[str]:
        kind = torchvision_class(self.name)
        if self.name == "svhn":
            return [kind.split_list[split][1]]
        listed = [*getattr(kind, f"{split}_list"), (kind.meta["filename"], "")]
        return [f"{kind.base_folder}/{file}" for file, _ in listed]

    def _open(self, folder: Path, split: str, *, download: bool = False) -> Any:
        part = {"split": split} if self.name == "svhn" else {"train": split == "train"}
        return torchvision_class(self.name)(folder, download=download, **part)

    def _split(self, split: str, dataset: Any) -> ArraySplit:
        name = f"{self.name}/{split}"
        if self.name == "svhn":
            return ArraySplit(name, dataset.data.transpose(0, 2, 3, 1), dataset.labels)
        return ArraySplit(name, dataset.data, dataset.targets)


class TrafficSigns(Source):
    """GTSRB: traffic signs of 15 x 15 to 250 x 250 pixels in PPM files.

    Training files are called ``<track>_<frame>``: up to 30 frames show one sign, so ``val`` is held
    out by tracks.

    Below ``<root>/gtsrb`` (or ``<root>/gtsrb/gtsrb``) lie ``GTSRB/Training`` (torchvision's 26,640
    training images) or ``GTSRB/Final_Training/Images`` (the final 39,209 of Table 6),
    ``GTSRB/Final_Test/Images`` and ``GT-final_test.csv``.

    Args:
        root: the folder of all data.
        training_set: ``final``, ``torchvision``, or ``auto``: the final one where it is there.
        images_url: where the files come from.
    """

    name = "gtsrb"

    def __init__(
        self,
        root: str,
        training_set: Literal["final", "torchvision", "auto"] = "auto",
        *,
        images_url: str,
    ) -> None:
        self.images_url = images_url
        base = at(root) / "gtsrb"
        self.folders = [base, base / "gtsrb"]
        self.training_set = training_set

    @override
    def is_there(self) -> bool:
        return any(folder.is_dir() for folder in self.folders)

    @override
    def load(self) -> Splits:
        sets = list(_TRAINING_SETS) if self.training_set == "auto" else [self.training_set]
        training = [folder / _TRAINING_SETS[name] for folder in self.folders for name in sets]
        answers = [folder / "GT-final_test.csv" for folder in self.folders]
        hint = _hint("gtsrb", self.images_url)
        problems = Problems()
        for needed in (training, answers):
            problems.require(
                any(path.exists() for path in needed),
                "gtsrb",
                f"{needed[0]} is missing",
                hint=hint
                + (f" The final training set: {_GTSRB_FINAL}." if needed is training else ""),
            )
        problems.raise_if_any()
        folder = next(path for path in training if path.exists())
        classes = visible_folders(folder)
        # Class numbers are the folders' names; the test images are listed by number.
        if classes != [f"{label:05d}" for label in range(len(classes))]:
            raise problem(str(folder), "class folders are left out", hint=hint)
        return Splits(
            train=images_by_class("gtsrb/train", folder, classes, groups=_TRACK),
            test=_from_csv(next(path for path in answers if path.exists()), hint),
            val=None,
            class_names=[*_SIGNS, *classes[len(_SIGNS) :]][: len(classes)],
        )

    def download(self) -> None:
        """Fetch what is missing into ``<root>/gtsrb``: the final training set by default."""
        from torchvision.datasets.utils import download_and_extract_archive

        root = self.folders[0].parent
        torchvision_class("gtsrb")(root, split="test", download=True)
        if self.training_set == "torchvision":
            torchvision_class("gtsrb")(root, split="train", download=True)
        elif not (self.folders[0] / _TRAINING_SETS["final"]).is_dir():
            download_and_extract_archive(_GTSRB_FINAL, str(self.folders[0]))


def _from_csv(answers: Path, hint: str) -> FileSplit:
    """The test images: ``GT-final_test.csv`` has a row each, divided by semicolons."""
    folder = answers.parent / "GTSRB/Final_Test/Images"
    with answers.open(newline="", encoding="utf-8") as file:
        try:
            rows = [
                (Path(row["Filename"]).name, int(row["ClassId"]))
                for row in csv.DictReader(file, delimiter=";", skipinitialspace=True)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise problem(
                str(answers), f"is no list of GTSRB's test images ({error!r})", hint=hint
            ) from error
    names, labels = [name for name, _ in rows], [label for _, label in rows]
    return FileSplit("gtsrb/test", folder, names, labels)


def _hint(name: str, url: str) -> str:
    return f"`smm prepare {name} --download` fetches the files ({url})."
