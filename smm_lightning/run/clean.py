"""``smm clean [overrides]``: what may be deleted below ``paths.root`` and ``paths.image_cache``.

Lists what writers that were killed left, folders of runs that never began, and image caches whose
images no run has. ``--yes`` deletes it. Caches are built again when they are needed.
"""

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from hydra import compose, initialize_config_dir

from smm_lightning.errors import UserError
from smm_lightning.files import UNFINISHED, at, read_json
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.run.config import CONF
from smm_lightning.run.folder import NEVER_BEGAN, STATE, RunFolder
from smm_lightning.run.result import FILE, read_result

_OLD_S = 3600  # seconds after which nobody writes to a temporary file any more
_OF_CACHES = (".partial", ".discarded", ".lock")  # beside a cache: a build, one that was damaged


class Leftover(NamedTuple):
    """Something that may be deleted.

    Attributes:
        path: of a file or folder.
        reason: why.
    """

    path: Path
    reason: str

    @property
    def size(self) -> int:
        """Bytes."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.lstat().st_size for file in files if not file.is_dir())

    def delete(self) -> None:
        """With everything in it.

        Raises:
            OSError: If it cannot be deleted.
        """
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="such as paths.root=/data/runs")
    parser.add_argument("--yes", action="store_true", help="delete what is listed")
    options = parser.parse_intermixed_args()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        paths = compose("train", options.overrides).paths
    root, caches = at(paths.root), at(paths.image_cache)
    found = [*of_runs(root), *of_caches(root, caches)]
    for one in found:
        print(f"{one.size / 1e6:10.1f} MB  {one.path}  ({one.reason})")
    total = f"{sum(one.size for one in found) / 1e6:.1f} MB in {len(found)} places"
    if not found:
        print(f"nothing to delete in {root} and {caches}")
    elif not options.yes:
        print(f"{total}; smm clean --yes deletes them")
    else:
        for one in found:
            one.delete()
        print(f"deleted: {total}")


def of_runs(root: Path) -> Iterator[Leftover]:
    """Temporary files of killed writers, and folders of runs that never began.

    Args:
        root: of the runs.
    """
    now = time.time()
    for file in sorted(root.rglob(f".*{UNFINISHED}")):
        if file.is_file() and now - file.stat().st_mtime > _OLD_S:
            yield Leftover(file, "a writer was killed")
    for folder in _folders(root):
        names = {path.name for path in folder.iterdir()}
        if names <= NEVER_BEGAN and RunFolder(folder, "").state().name != "running":
            yield Leftover(folder, "a run that never began")


def of_caches(root: Path, caches: Path) -> Iterator[Leftover]:
    """Image caches whose images no run has, and what lies beside caches that are gone.

    While a run has not noted its images yet, all caches stay. One that failed before it did so
    would build them again.

    Args:
        root: of the runs.
        caches: where they lie.
    """
    if not caches.is_dir():
        return
    used = _digests(root)
    for folder in sorted(path for path in caches.iterdir() if path.is_dir()):
        if folder.suffix in _OF_CACHES:
            if not _held(caches / f"{folder.stem}.lock"):
                yield Leftover(folder, "a build that was killed")
        elif used is not None and (digest := _digest(folder)) is not None and digest not in used:
            yield Leftover(folder, "no run has these images")
    for lock in sorted(caches.glob("*.lock")):
        beside = any((caches / f"{lock.stem}{end}").exists() for end in ("", ".partial"))
        if lock.is_file() and not beside and not _held(lock):
            yield Leftover(lock, "of a cache that is gone")


def _folders(root: Path) -> list[Path]:
    """Of runs, finished or not."""
    found = {path.parent for name in (FILE, STATE) for path in root.rglob(name)}
    return sorted(found)


def _digests(root: Path) -> set[str] | None:
    """Of the images of all runs; ``None`` while a run is building its caches."""
    digests: set[str] = set()
    for folder in _folders(root):
        result = read_result(folder)
        images = result.get("images") if result else _images_of_checkpoint(folder / "last.ckpt")
        if images is None and RunFolder(folder, "").state().name == "running":
            return None
        digests |= {str(facts.get("digest")) for facts in (images or {}).values()}
    return digests


def _images_of_checkpoint(path: Path) -> dict[str, dict[str, str]] | None:
    try:
        images = read_checkpoint(path)["identity"].get("images")
    except UserError:
        return None
    return images if isinstance(images, dict) else None


def _digest(cache: Path) -> str | None:
    """Of the images of a cache; ``None`` for a folder that is none."""
    try:
        digest = json.loads(read_json(cache / "cache.json")["facts"])["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(digest)


def _held(lock: Path) -> bool:
    """Whether a process builds the cache of this lock."""
    if not lock.exists():
        return False
    try:
        with FileLock(lock).acquire(timeout=0):
            return False
    except Timeout:
        return True
