"""The screen: one that is closed, full or left, or that lacks a letter, ends no run."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from smm_lightning.run.sweep import is_job


class _Stream:
    """A stream that goes on quietly after it was lost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        """Write, if anyone can read."""
        if self.lost is None:
            try:
                return self._stream.write(text)
            except UnicodeEncodeError:  # letters that it lacks are replaced
                encoding = self._stream.encoding
                return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
            except (OSError, ValueError) as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Write what is kept back, if anyone can read."""
        if self.lost is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._lose(error)

    def _lose(self, error: Exception) -> None:
        self.lost = error
        # What others write there, and what is still kept back, goes nowhere.
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def kept_screen() -> Iterator[None]:
    """Let nothing that happens to the screen end the program, but its exit status say so.

    Raises:
        SystemExit: With status 1, at the end, if the screen was lost and nothing worse happened.
    """
    if isinstance(sys.stdout, _Stream):
        yield
        return
    _open_closed()
    before = sys.stdout, sys.stderr
    out, err = (_Stream(stream) for stream in before)
    sys.stdout, sys.stderr = out, err
    left: SystemExit | None = None
    try:
        yield
    except SystemExit as leaving:
        left = leaving
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
    # The results of a job count; that the screen was lost is said by its sweep.
    if out.lost is not None and not (left and left.code) and not is_job():
        if getattr(out.lost, "errno", None) != errno.EPIPE:  # the reader of a pipe has seen enough
            with suppress(OSError):
                print(f"error: standard output was lost ({out.lost})", file=sys.stderr)
        sys.exit(1)
    if left is not None:
        raise left


def _open_closed() -> None:
    """Else the next file that is opened would be taken for the screen."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115
