"""Files: written so that a reader never sees half of one, read without waiting for a pipe."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smm_lightning.errors import problem
from smm_lightning.text import parsed_json

LARGEST_TEXT = 2**28  # bytes of a file of text that is read as a whole
UNFINISHED = ".tmp"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one step; a crash or a full disk leaves the old file.

    The temporary file lies in the same folder: renaming is atomic only within a file system.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o666 & ~_umask())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def at(place: str | int | Path) -> Path:
    """A path of the configuration; ``~`` is the home, and a folder may be called 2024."""
    return Path(os.path.expanduser(str(place)))  # noqa: PTH111 - Path's own refuses ~nobody


def read_file(path: Path, most: int | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: of it.
        most: bytes that it may have.

    Raises:
        OSError: If it cannot be read, is a pipe, a device or a folder, or is larger.
    """
    # A pipe without a writer would be waited for.
    with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        if most is not None and status.st_size > most:
            raise OSError(errno.EFBIG, "is too large", str(path))
        return file.read()


def read_json(path: Path) -> Any:
    """Of a regular file, whoever wrote it.

    Raises:
        OSError: See :func:`read_file`.
        ValueError: See :func:`parsed_json`.
    """
    return parsed_json(read_file(path, LARGEST_TEXT))


def remove_unfinished(folder: Path) -> None:
    """Delete what killed writers left in a folder that no other process writes to now."""
    for path in folder.glob(f".*{UNFINISHED}"):
        path.unlink(missing_ok=True)


@contextmanager
def writing(field: str, path: Path) -> Iterator[None]:
    """Say in a line that an output cannot be written.

    Args:
        field: that named it.
        path: of it.

    Raises:
        UserError: If the block raises :class:`OSError`.
    """
    try:
        yield
    except OSError as error:
        what = f"cannot be written ({error.strerror or error})"
        hint = f"Make room, or choose another place with {field}."
        raise problem(field, what, str(path), hint) from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
