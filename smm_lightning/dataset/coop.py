"""The eight datasets that the paper takes with CoOp's split."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from typing_extensions import override

from smm_lightning.dataset.lmdb_split import LmdbSplit
from smm_lightning.dataset.sources import Source
from smm_lightning.dataset.splits import FileSplit, Split, Splits
from smm_lightning.errors import Problems, problem
from smm_lightning.files import at, read_json

_PARTS = ("train", "test", "val")
_SHOWN = 3  # of many problems of a kind


class CoOp(Source):
    """Images in CoOp's, torchvision's or ILM-VP's folders, divided by CoOp's split file.

    Below ``root``, the first that is there is used:

    - CoOp's or torchvision's image folder (``folders``);
    - ILM-VP's ``<name>/images``, or ``<name>/train.lmdb`` and ``test.lmdb``.

    The split file lies beside the images, in CoOp's folder or in the root, or is ILM-VP's
    ``<name>/split.json``. Its ``val`` part, where it has one, becomes ``val``.

    Args:
        name: of the dataset, and of ILM-VP's folder.
        root: the folder of all data.
        split: name of CoOp's JSON file, such as ``split_zhou_EuroSAT.json``.
        split_url: where to fetch it by hand.
        folders: that may hold the images, below the data root: CoOp's first, then torchvision's.
        images_url: where the images come from.
        torchvision: the class of ``torchvision.datasets`` that downloads them, if one can.
    """

    def __init__(
        self,
        name: str,
        root: str,
        *,
        split: str,
        split_url: str,
        folders: Sequence[str],
        images_url: str,
        torchvision: str | None = None,
    ) -> None:
        self.name = name
        self.root = at(root)
        self.split = split
        self.split_url = split_url
        self.folders = folders
        self.images_url = images_url
        self.torchvision = torchvision

    @override
    def is_there(self) -> bool:
        return self._images() is not None or self._databases() is not None

    @override
    def load(self) -> Splits:
        images = self._images()
        databases = self._databases()
        split_file = self._split_file(images)
        problems = Problems()
        present = images is not None or databases is not None
        problems.require(present, self.name, f"no images in {self.root}", hint=self._image_hint())
        problems.require(
            split_file is not None,
            self.name,
            f"{self.split} is missing",
            hint=f"Fetch it from {self.split_url} and put it into {self._home()}.",
        )
        problems.raise_if_any()
        assert split_file is not None
        parts = read_split(split_file)
        splits: dict[str, Split] = {}
        for part, rows in parts.rows.items():
            name = f"{self.name}/{part}"
            labels = np.array([row.label for row in rows], dtype=np.int64)
            if images is not None:
                splits[part] = FileSplit(name, images, [str(row.path) for row in rows], labels)
            elif databases is not None and part in databases:
                splits[part] = LmdbSplit(name, databases[part], labels)
        return Splits(splits["train"], splits["test"], splits.get("val"), parts.class_names)

    def download(self) -> None:
        """Let torchvision fetch the images into its own folders.

        Raises:
            UserError: If it cannot for this dataset.
        """
        if self._images() is not None or self._databases() is not None:
            return
        if self.torchvision is None:
            raise problem(self.name, "no download", hint=self._image_hint())
        from torchvision import datasets

        getattr(datasets, self.torchvision)(self.root, download=True)

    def _home(self) -> Path:
        """CoOp's folder, where the split file belongs."""
        return self.root / PurePosixPath(self.folders[0]).parts[0]

    def _images(self) -> Path | None:
        candidates = [*self.folders, f"{self.name}/images"]
        return next((self.root / c for c in candidates if (self.root / c).is_dir()), None)

    def _databases(self) -> dict[str, Path] | None:
        paths = {part: self.root / self.name / f"{part}.lmdb" for part in _PARTS}
        paths = {part: path for part, path in paths.items() if path.exists()}
        return paths if {"train", "test"} <= paths.keys() else None

    def _split_file(self, images: Path | None) -> Path | None:
        folders = [self._home(), self.root]
        if images is not None:
            folders += [images, *(f for f in images.parents if f.is_relative_to(self.root))]
        candidates = [folder / self.split for folder in folders]
        # ILM-VP's copy of the same file.
        candidates.append(self.root / self.name / "split.json")
        return next((path for path in candidates if path.is_file()), None)

    def _image_hint(self) -> str:
        fetch = (
            f"`smm prepare {self.name} --download` fetches them, or take them"
            if self.torchvision
            else "Fetch them"
        )
        home = self.root / self.folders[0]
        return f"{fetch} from {self.images_url}; they belong in {home}."


@dataclass(frozen=True)
class Row:
    """An image of a split file: path below the image folder, class number, class name."""

    path: PurePosixPath
    label: int
    class_name: str


@dataclass(frozen=True)
class SplitFile:
    """The rows of each part, and the class names in the order of their numbers."""

    rows: dict[str, list[Row]]
    class_names: list[str]


def read_split(file: Path) -> SplitFile:
    """Read and check a split file: ``{"train": [[path, label, class name], ...], "test": ...}``.

    Raises:
        UserError: If it is no such file, a path leaves the image folder, an image stands in two
            parts or twice in one, a class has two names, or class numbers are left out.
    """
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise problem(str(file), f"is no JSON ({error})", hint="Fetch it again.") from error
    if not (isinstance(content, dict) and {"train", "test"} <= content.keys()):
        raise problem(str(file), "has no parts 'train' and 'test'")
    problems = Problems()
    rows: dict[str, list[Row]] = {}
    for part in _PARTS:
        if content.get(part):
            rows[part] = _rows(content[part], f"{file}: {part}", problems)
        else:
            problems.require(part == "val", str(file), f"part '{part}' is empty", 0)
    problems.raise_if_any()
    _check_unique(rows, file, problems)
    names = _class_names(rows, file, problems)
    problems.raise_if_any()
    return SplitFile(rows, names)


def _rows(entries: Any, where: str, problems: Problems) -> list[Row]:
    if not isinstance(entries, list):
        problems.add(where, "is no list", type(entries).__name__)
        return []
    rows = []
    wrong = []
    for entry in entries:
        match entry:
            case [str(path), int(label), str(name)] if _is_class(label) and _is_inside(path):
                rows.append(Row(PurePosixPath(path), label, name))
            case _:
                wrong.append(entry)
    for entry in wrong[:_SHOWN]:
        more = f" (and {len(wrong) - _SHOWN} more)" if len(wrong) > _SHOWN else ""
        what = "is no [path below the image folder, class number, class name]" + more
        problems.add(where, what, entry)
    return rows


def _is_class(label: int) -> bool:
    """Whether it can be a class number; true and false are whole numbers to Python."""
    return label >= 0 and not isinstance(label, bool)


def _is_inside(path: str) -> bool:
    """Whether the path stays below the folder that it is relative to."""
    parts = PurePosixPath(path).parts
    hostile = "\0" in path or "\\" in path or ":" in path
    return bool(parts) and not path.startswith("/") and ".." not in parts and not hostile


def _check_unique(rows: dict[str, list[Row]], file: Path, problems: Problems) -> None:
    seen: dict[PurePosixPath, str] = {}
    twice = []
    for part, listed in rows.items():
        for row in listed:
            if row.path in seen:
                twice.append(f"{row.path} ({seen[row.path]}, {part})")
            seen[row.path] = part
    problems.require(
        not twice, str(file), f"{len(twice)} images stand in it twice", ", ".join(twice[:_SHOWN])
    )


def _class_names(rows: dict[str, list[Row]], file: Path, problems: Problems) -> list[str]:
    names: dict[int, str] = {}
    for row in (row for listed in rows.values() for row in listed):
        known = names.setdefault(row.label, row.class_name)
        if known != row.class_name:
            what = f"class {row.label} has two names, one is '{known}'"
            problems.add(str(file), what, row.class_name)
            break
    absent = list(islice((n for n in range(max(names)) if n not in names), _SHOWN))
    problems.require(not absent, str(file), "class numbers are left out", absent)
    return [names[label] for label in sorted(names)]
