"""A user's own images: a folder for each split, and in it one for each class."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from smm_lightning.dataset.batch import checked_names
from smm_lightning.dataset.decoding import AS_PUBLISHED, Decoding
from smm_lightning.dataset.image_files import HIDDEN, NO_CLASS, Walker, is_hidden, visible_folders
from smm_lightning.dataset.sources import Source
from smm_lightning.dataset.splits import NO_OBJECT, FileSplit, Splits
from smm_lightning.errors import Problems, did_you_mean, problem
from smm_lightning.files import at
from smm_lightning.text import same_form

ONE_CLASS = "Where classes are folders, they belong directly below that of the split."
# Other names of the validation folder, in the order in which they are looked for.
_VAL_FOLDERS = ("val", "valid", "validation", "dev")


class ImageFolder(Source):
    r"""Any ``<root>/<split>/<class>/<image>``: a user's own images.

    Args:
        root: the folder that holds the splits.
        train: name of the training folder.
        test: name of the test folder.
        val: name of the validation folder; ``auto``: ``val``, ``valid``, ``validation`` or ``dev``,
            where there is one; ``None``: none.
        exif: turn photographs upright, as their camera noted.
        background: colour behind what is transparent; see :class:`Decoding`.
        groups: a regular expression that finds in a file's name the object which the image shows,
            such as ``^(\d+)_``: images of one object of a class are never divided between splits.

    Raises:
        UserError: If ``root`` is not set, or another value cannot be used.
    """

    name = "imagefolder"

    def __init__(
        self,
        root: str | int | None,
        train: str | int = "train",
        test: str | int = "test",
        val: str | int | None = "auto",
        *,
        exif: bool = True,
        background: str | None = "white",
        groups: str | None = None,
    ) -> None:
        if root is None:
            raise problem(
                "dataset.source.root",
                "is not set",
                hint="Give the folder of your images: dataset.source.root=<folder> "
                "with <folder>/train/<class>/*.jpg and <folder>/test/<class>/*.jpg.",
            )
        self.root = at(root)
        self.folders = {"train": str(train), "test": str(test)}
        self.folders |= {} if val is None else {"val": str(val)}
        self.decoding = Decoding(exif, background)
        self.groups = None if groups is None else _pattern(groups)

    @override
    def is_there(self) -> bool:
        return self.root.is_dir()

    @override
    def load(self) -> Splits:
        folders = self._folders()
        there = visible_folders(folders["train"])
        if not there:
            hint = f"Images belong in {folders['train']}/<class>/*.jpg."
            raise problem(str(folders["train"]), "has no folder of a class", hint=hint)
        class_names = checked_names(there)
        splits = {part: self._split(part, folders, class_names) for part in folders}
        if self.groups is not None:
            names = [name for split in splits.values() for name in split.names]
            if names and not any(self.groups.search(PurePath(name).name) for name in names):
                what = f"fits no file name, such as {names[0]}"
                raise problem("dataset.source.groups", what, self.groups.pattern)
        return Splits(splits["train"], splits["test"], splits.get("val"), class_names)

    def _folders(self) -> dict[str, Path]:
        """The folder of every split."""
        if not self.root.is_dir():
            hint = f"Images belong in {self.root}/{self.folders['train']}/<class>/*.jpg."
            raise problem("dataset.source.root", "no such folder", str(self.root), hint)
        wanted = dict(self.folders)
        if wanted.get("val") == "auto":
            del wanted["val"]
            free = (name for name in _VAL_FOLDERS if name not in wanted.values())
            there = [name for name in free if (self.root / name).is_dir()]
            wanted |= {"val": there[0]} if there else {}
        folders = {part: self.root / name for part, name in wanted.items()}
        problems = Problems()
        for part, folder in folders.items():
            known = visible_folders(self.root)
            problems.require(
                folder.is_dir(),
                f"dataset.source.{part}",
                f"{self.root} has no such folder",
                folder.name,
                f"{did_you_mean(folder.name, known)} Images belong in {folder}/<class>/*.jpg.",
            )
        problems.raise_if_any()
        return folders

    def _split(self, part: str, folders: Mapping[str, Path], class_names: list[str]) -> FileSplit:
        folder = folders[part]
        unknown = [name for name in visible_folders(folder) if name not in class_names]
        if unknown:
            alike = {_plain(name): name for name in class_names}
            raise problem(
                str(folder),
                "has classes that the training folder lacks",
                ", ".join(unknown),
                " ".join(
                    f"'{name}' differs from its '{alike[_plain(name)]}' only in upper and lower "
                    "case or in the form of its Unicode characters."
                    for name in unknown
                    if _plain(name) in alike
                ),
            )
        name = f"imagefolder/{part}"
        split = images_by_class(
            name, folder, class_names, decoding=self.decoding, groups=self.groups
        )
        split.folder = folder.name
        return split


def _plain(name: str) -> str:
    """Without differences that people do not see."""
    return same_form(name).casefold()


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise problem(
            "dataset.source.groups", f"is no regular expression ({error})", text
        ) from error


def images_by_class(
    name: str,
    folder: Path,
    class_folders: list[str],
    *,
    decoding: Decoding = AS_PUBLISHED,
    groups: re.Pattern[str] | None = None,
) -> FileSplit:
    """The images of ``<folder>/<class folder>``, however deep, in sorted order.

    Args:
        name: of the split.
        folder: that holds the class folders.
        class_folders: in the order of the class numbers.
        decoding: from files to RGB.
        groups: finds in a file's name the object that the image shows.
    """
    walker = Walker()  # one for all classes: a file that two of them link to counts once
    names: list[str] = []
    labels: list[int] = []
    left_out: Counter[str] = Counter()
    present = [name for name in class_folders if (folder / name).is_dir()]  # it may lack a class
    every = walker.below(*(folder / class_folder for class_folder in present))
    for class_folder, paths in zip(present, every, strict=True):
        label = class_folders.index(class_folder)
        names += [path.relative_to(folder).as_posix() for path in paths.images]
        labels += [label] * len(paths.images)
        left_out.update(paths.counts)
    left_out.update(_beside(folder))
    objects = None if groups is None else objects_of(names, groups)
    return FileSplit(name, folder, names, labels, decoding, groups=objects, left_out=left_out)


def _beside(folder: Path) -> dict[str, int]:
    """Files that lie beside the class folders."""
    names = [path.name for path in folder.iterdir() if not path.is_dir()]
    visible = sum(not is_hidden(name) for name in names)
    counts = {NO_CLASS: visible, HIDDEN: len(names) - visible}
    return {reason: count for reason, count in counts.items() if count}


def objects_of(names: Sequence[str], pattern: re.Pattern[str]) -> NDArray[np.str_]:
    """The object that each file shows (N,), as ``<class folder>/<object>``.

    Args:
        names: relative names; the pattern is looked for in the last part.
        pattern: its first group that took part, or else all of it, names the object. A file whose
            name it does not fit is an object of its own.
    """
    objects = []
    for name in names:
        match = pattern.search(PurePath(name).name)
        answers = (match.groups() if pattern.groups else (match[0],)) if match else ()
        text = next((answer for answer in answers if answer is not None), None)
        # Numbers may begin anew in every class.
        objects.append(
            f"{NO_OBJECT}{name}" if text is None else f"{PurePath(name).parts[0]}/{text}"
        )
    return np.array(objects, dtype=np.str_)
