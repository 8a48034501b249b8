"""``smm clean [overrides]``: what may be deleted below ``paths.root`` and ``paths.image_cache``.

Lists what writers that were killed left, folders of runs that never began, and, with ``--caches``,
image caches whose images no run below ``paths.root`` has; runs elsewhere may use them, and build
them again. ``--yes`` deletes what is listed.
"""

import argparse
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from smm_lightning.errors import UserError
from smm_lightning.files import UNFINISHED, at, read_json
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.run.config import composed
from smm_lightning.run.folder import LOCK, NEVER_BEGAN, STATE, RunFolder, is_locked
from smm_lightning.run.result import FILE, read_result

_OLD_S = 3600  # seconds after which nobody writes to a temporary file any more
# A cache, and what lies beside one: a build, one that was found damaged.
_CACHE = re.compile(r"(.+-\d+px-[0-9a-f]{12})(\.partial|\.discarded)?")


@dataclass(frozen=True)
class Leftover:
    """Something that may be deleted.

    Attributes:
        path: of a file or folder.
        reason: why.
        lock: that a process holds while it works with it; ``None`` for a file of no process.
    """

    path: Path
    reason: str
    lock: Path | None = None

    @cached_property
    def size(self) -> int:
        """Bytes."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.lstat().st_size for file in files if not file.is_dir())

    def delete(self) -> bool:
        """With everything in it, unless a process began to work with it; whether it is gone.

        Raises:
            OSError: If it cannot be deleted.
        """
        if self.lock is None:
            self.path.unlink(missing_ok=True)
            return True
        try:
            with FileLock(self.lock).acquire(timeout=0):
                shutil.rmtree(self.path)
        except Timeout:
            return False
        return True


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="such as paths.root=/data/runs")
    parser.add_argument("--caches", action="store_true", help="image caches, too")
    parser.add_argument("--yes", action="store_true", help="delete what is listed")
    options = parser.parse_intermixed_args()
    paths = composed(options.overrides).paths
    root, caches = at(paths.root), at(paths.image_cache)
    found = [*of_runs(root), *of_builds(caches)]
    found += of_caches(root, caches) if options.caches else []
    for one in found:
        print(f"{one.size / 1e6:10.1f} MB  {one.path}  ({one.reason})")
    total = f"{sum(one.size for one in found) / 1e6:.1f} MB in {len(found)} places"
    if not found:
        print(f"nothing to delete in {root} and {caches}")
    elif not options.yes:
        print(f"{total}; --yes deletes them")
    else:
        kept = [str(one.path) for one in found if not one.delete()]
        print(f"deleted: {total}" + (f", but not {', '.join(kept)}" if kept else ""))


def of_runs(root: Path) -> Iterator[Leftover]:
    """Temporary files of killed writers, and folders of runs that never began.

    A run that failed keeps its folder, which says why.

    Args:
        root: of the runs.
    """
    now = time.time()
    for folder in _folders(root):
        state = RunFolder(folder, "").state().name
        names = {path.name for path in folder.iterdir()}
        if names <= NEVER_BEGAN and state in ("pending", "interrupted"):
            yield Leftover(folder, "a run that never began", folder / LOCK)
            continue
        for file in sorted(folder.glob(f".*{UNFINISHED}")):
            if state != "running" and now - file.stat().st_mtime > _OLD_S:
                yield Leftover(file, "a writer was killed")


def of_builds(caches: Path) -> Iterator[Leftover]:
    """Image caches that were half built, or found damaged.

    Args:
        caches: where they lie.
    """
    for folder, ending in _caches(caches):
        lock = _lock_of(folder)
        if ending and not is_locked(lock):
            yield Leftover(folder, "a build that was killed", lock)


def of_caches(root: Path, caches: Path) -> Iterator[Leftover]:
    """Image caches whose images no run below ``root`` has.

    While one of them has not noted its images yet, all caches stay. One that failed before it did
    so would build them again.

    Args:
        root: of the runs.
        caches: where they lie.
    """
    used = _digests(root)
    for folder, ending in _caches(caches):
        digest = _digest(folder)
        if used is not None and not ending and digest is not None and digest not in used:
            yield Leftover(folder, f"no run below {root} has these images", _lock_of(folder))


def _folders(root: Path) -> list[Path]:
    """Of runs of this program, finished or not."""
    found = set()
    for file in (file for name in (FILE, STATE) for file in root.rglob(name)):
        try:
            if isinstance(read_json(file)["run_key"], str):
                found.add(file.parent)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found)


def _caches(caches: Path) -> Iterator[tuple[Path, str]]:
    """Folders with names of image caches, and what these end with."""
    for folder in sorted(caches.iterdir()) if caches.is_dir() else []:
        named = _CACHE.fullmatch(folder.name)
        if named and folder.is_dir() and not folder.is_symlink():
            yield folder, named[2] or ""


def _lock_of(cache: Path) -> Path:
    """That a process holds while it builds the cache."""
    named = _CACHE.fullmatch(cache.name)
    assert named is not None
    return cache.with_name(f"{named[1]}.lock")


def _digests(root: Path) -> set[str] | None:
    """Of the images of all runs; ``None`` while a run is building its caches."""
    digests: set[str] = set()
    for folder in _folders(root):
        result = read_result(folder)
        images = result.get("images") if result else _images_of_checkpoint(folder / "last.ckpt")
        if images is None and RunFolder(folder, "").state().name == "running":
            return None
        of_splits = images.values() if isinstance(images, dict) else ()
        digests |= {str(facts.get("digest")) for facts in of_splits if isinstance(facts, dict)}
    return digests


def _images_of_checkpoint(path: Path) -> object:
    try:
        return read_checkpoint(path)["identity"].get("images")
    except UserError:
        return None


def _digest(cache: Path) -> str | None:
    """Of the images of a cache; ``None`` for a folder that is none."""
    try:
        digest = json.loads(read_json(cache / "cache.json")["facts"])["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(digest)
