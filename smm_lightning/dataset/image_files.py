"""Which files below a folder are images: one answer for training, prediction and preparation."""

import os
from collections import defaultdict, deque
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from smm_lightning.errors import problem

# Registered with Pillow, which only recognises them, or needs another program to read them.
_UNREADABLE_FORMATS = ("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF")
_MADE_BY_SYSTEMS = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx")

HIDDEN = "hidden, or made by a system"
TWICE = "links to what was taken already"
BROKEN_LINK = "broken links"
SPECIAL = "no regular files"
CLOSED = "folders that cannot be opened"
NO_CLASS = "in no class folder"


@dataclass
class ImagePaths:
    """What a walk found.

    Attributes:
        images: in sorted order.
        left_out: what was not taken, by reason.
    """

    images: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    def add(self, other: "ImagePaths") -> None:
        """Put what another walk found behind it."""
        self.images += other.images
        for reason, paths in other.left_out.items():
            self.left_out[reason] += paths

    @property
    def counts(self) -> dict[str, int]:
        """How many files and folders were left out, by reason."""
        return {reason: len(paths) for reason, paths in sorted(self.left_out.items())}


@cache
def suffixes() -> frozenset[str]:
    """Endings, in lower case, of the image files that Pillow reads."""
    known = Image.registered_extensions().items()
    readable = {*Image.OPEN, "MPO"} - {*_UNREADABLE_FORMATS}
    return frozenset(suffix for suffix, kind in known if kind in readable)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is there for a program, not for people."""
    return name.startswith(".") or name.lower() in _MADE_BY_SYSTEMS


class Walker:
    """Walks folders and takes every image file once, however many links lead to it.

    Folders and files are followed through links, after everything that lies there itself: a link
    takes no file away from the folder that holds it. Hidden ones never count, and a folder is a
    folder whatever its name.
    """

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._visited: set[str] = set()
        self._links: deque[tuple[str, str, ImagePaths]] = deque()  # to be followed later

    def below(self, *folders: Path) -> list[ImagePaths]:
        """All images below each of the folders, however deep."""
        answers = []
        for folder in folders:
            paths = ImagePaths()
            answers.append(paths)
            self._go_on(str(folder), os.path.realpath(folder), paths, linked=folder.is_symlink())
        while self._links:
            path, real, paths = self._links.popleft()
            self._go_on(path, real, paths, linked=False)
        for paths in answers:
            paths.images.sort()
        return answers

    def file(self, path: Path, paths: ImagePaths) -> None:
        """Take a file that someone named, whatever its ending, but not twice.

        Args:
            path: of it.
            paths: where it is noted.
        """
        self._take(str(path), os.path.realpath(path), paths, is_file=True, named=True)

    def _visit(self, folder: str, real: str, paths: ImagePaths) -> None:
        if real in self._visited:  # perhaps a link to a folder that it lies in
            paths.left_out[TWICE].append(Path(folder))
            return
        self._visited.add(real)
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            paths.left_out[CLOSED].append(Path(folder))
            return
        for entry in entries:
            # Resolving every path would take longer than all the rest.
            place = os.path.realpath(entry) if entry.is_symlink() else f"{real}/{entry.name}"
            if is_hidden(entry.name):
                paths.left_out[HIDDEN].append(Path(entry.path))
            else:
                self._go_on(entry.path, place, paths, linked=entry.is_symlink())

    def _go_on(self, path: str, real: str, paths: ImagePaths, *, linked: bool) -> None:
        if linked:
            self._links.append((path, real, paths))
        elif os.path.isdir(real):  # noqa: PTH112
            self._visit(path, real, paths)
        else:
            self._take(path, real, paths, is_file=os.path.isfile(real))  # noqa: PTH113

    def _take(
        self, path: str, real: str, paths: ImagePaths, *, is_file: bool, named: bool = False
    ) -> None:
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - fifty thousand times
        if not is_file:
            reason = SPECIAL if os.path.exists(path) else BROKEN_LINK  # noqa: PTH110
        elif not named and suffix not in suffixes():
            reason = f"no images ({suffix or 'without an ending'})"
        elif real in self._taken:
            reason = TWICE
        else:
            self._taken.add(real)
            paths.images.append(Path(path))
            return
        paths.left_out[reason].append(Path(path))


def visible_folders(folder: Path) -> list[str]:
    """Names of the folders in ``folder`` that are not hidden, sorted.

    Raises:
        UserError: If it cannot be opened.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise problem(str(folder), f"cannot be opened ({error.strerror})") from error
    return sorted(e.name for e in entries if not is_hidden(e.name) and _is_folder(e))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to what may not be looked at
        return False
