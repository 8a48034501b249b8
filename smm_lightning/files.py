"""Writing files so that a reader never sees half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smm_lightning.errors import problem

_UNFINISHED = ".tmp"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace ``path`` by ``content`` in one step; a crash or a full disk leaves the old file.

    The temporary file lies in the same folder: renaming is atomic only within a file system.

    Raises:
        OSError: If the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(_UNFINISHED, f".{path.name}.", path.parent)
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


def remove_unfinished(folder: Path) -> None:
    """Delete what killed writers left in a folder that no other process writes to now."""
    for path in folder.glob(f".*{_UNFINISHED}"):
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
