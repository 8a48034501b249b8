"""ILM-VP's LMDB files: a pickled (encoded image, label) per key."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from smm_lightning.dataset.decoding import decoded
from smm_lightning.dataset.records import load_record
from smm_lightning.dataset.splits import Split, stamp
from smm_lightning.errors import from_extra, problem


class LmdbSplit(Split):
    """Images in an LMDB as ILM-VP writes it.

    ``__keys__`` holds the list of keys and ``__len__`` its length, both pickled; under each key
    lies a pickled (bytes of the image file, label). Nothing in the file is run.

    Args:
        name: for messages.
        path: of the LMDB: a folder with ``data.mdb``, or a file.
        labels: of the split file that belongs to it; a record that disagrees is an error.

    Raises:
        UserError: If lmdb is not installed, or the file is truncated or no such LMDB.
    """

    def __init__(self, name: str, path: Path, labels: NDArray[np.int64]) -> None:
        super().__init__(name, labels)
        self.path = path
        self.keys = self._keys()
        if len(self.keys) != len(labels):
            raise problem(str(path), f"holds {len(self.keys)} images, its split file {len(labels)}")

    @property
    @override
    def stamp(self) -> str:
        return stamp(self.name, self._file.parent, [self._file.name], self.labels.tobytes())

    @override
    def name_of(self, index: int) -> str:
        return self.keys[index].decode(errors="replace")

    @override
    def read(self, index: int) -> Image.Image:
        where = f"{self.name}[{index}] {self.path}"
        record = self._record(self.keys[index], where)
        if not (
            isinstance(record, tuple | list)
            and len(record) == 2  # noqa: PLR2004 - the image and its label
            and isinstance(record[0], bytes)
        ):
            raise problem(where, "the record is no (image, label)")
        # Labels come from the split file; a record of another order would train nonsense.
        if record[1] != self.labels[index]:
            expected = int(self.labels[index])
            raise problem(where, f"has another label than the split file's {expected}", record[1])
        return decoded(record[0], where)

    @property
    def _file(self) -> Path:
        return self.path / "data.mdb" if self.path.is_dir() else self.path

    def _keys(self) -> list[bytes]:
        where = str(self.path)
        keys = self._record(b"__keys__", where)
        length = self._record(b"__len__", where)
        if not (isinstance(keys, list | tuple) and all(isinstance(key, bytes) for key in keys)):
            raise problem(where, "__keys__ is no list of keys")
        if len(keys) != length:
            raise problem(where, f"__len__ is not the {len(keys)} of __keys__", length)
        return list(keys)

    def _record(self, key: bytes, where: str) -> Any:
        with _opened(self.path, self._file) as environment, environment.begin() as transaction:
            content = transaction.get(key)
        if content is None:
            raise problem(where, f"has no record {key.decode(errors='replace')!r}")
        try:
            return load_record(content)
        except ValueError as error:
            raise problem(where, f"holds a {error}", hint="Only data is read.") from error


def _opened(path: Path, file: Path) -> Any:
    """The LMDB, for one read.

    It must not stay open: a process that is forked can neither use nor reopen it.
    """
    with from_extra("lmdb", str(path)):
        import lmdb
    try:
        environment = lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False
        )
    except lmdb.Error as error:
        raise problem(str(path), f"is no readable LMDB ({error})") from error
    # A page beyond the end of the file would kill the process with SIGBUS.
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = file.stat().st_size
    if size < needed:
        environment.close()
        raise problem(str(path), f"is truncated: {size} of {needed} bytes", hint="Copy it again.")
    return environment
