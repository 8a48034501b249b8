"""Problems that a user can mend, said in one line each."""

import difflib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_NOTHING = object()
_OF_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM}
_OF_STORAGE |= {errno.EIO, errno.EMFILE, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_LONGEST = 500  # characters of a value in a message


class UserError(Exception):
    """Bad configuration or a bad file, shown without a traceback; a line per problem."""

    @property
    def problems(self) -> list[str]:
        """The problems, one line each, also after a data-loader worker re-raised this error."""
        # A worker process hands over its formatted traceback as the message; ours is its tail.
        return str(self).rpartition("UserError: ")[2].strip().splitlines()


class RunEndedError(Exception):
    """A run of a sweep ended without a result; the message says which and why."""


def problem(where: str, what: str, got: object = _NOTHING, hint: str = "") -> UserError:
    """An error that reads ``<field or file>: <what is wrong> (got <value>). <hint>``."""
    value = "" if got is _NOTHING else f" (got {_shown(got)})"
    return UserError(f"{where}: {what}{value}. {hint}".rstrip())


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep; a number of too many digits
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


class Problems:
    """Gathers problems, so that a user sees all of them at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def require(
        self,
        ok: bool,  # noqa: FBT001
        where: str,
        what: str,
        got: object = _NOTHING,
        hint: str = "",
    ) -> None:
        """Note a problem unless ``ok``; the other arguments are those of :func:`problem`."""
        if not ok:
            self.add(where, what, got, hint)

    def add(self, where: str, what: str, got: object = _NOTHING, hint: str = "") -> None:
        """Note a problem; the arguments are those of :func:`problem`."""
        self.lines += problem(where, what, got, hint).problems

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Note the :class:`UserError` that the block raises, and go on."""
        try:
            yield
        except UserError as error:
            self.lines += error.problems

    def as_error(self) -> UserError:
        """Everything found so far as one error."""
        return UserError("\n".join(self.lines))

    def raise_if_any(self) -> None:
        """Raise one :class:`UserError` with everything found so far.

        Raises:
            UserError: If anything was found.
        """
        if self.lines:
            raise self.as_error()


def one_line(error: BaseException) -> str:
    """What went wrong, short enough for a table."""
    if isinstance(error, UserError):
        return error.problems[0]
    if isinstance(error, SystemExit):
        return f"left with exit status {error.code}"
    text = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}".rstrip(": ")


def of_storage(error: BaseException) -> UserError | None:
    """The same as a user's error, where the disk is full, read-only or closed to the user."""
    if not isinstance(error, OSError) or error.errno not in _OF_STORAGE:
        return None
    place = "the disk" if error.filename is None else os.fsdecode(error.filename)
    hint = "Make room, or choose another place."
    return problem(place, f"cannot be read or written ({error.strerror})", hint=hint)


@contextmanager
def from_extra(extra: str, where: str) -> Iterator[None]:
    """Say which extra of this package to install when the import in the block fails.

    Raises:
        UserError: If it fails.
    """
    try:
        yield
    except ImportError as error:
        hint = f"Install it: pip install 'smm-lightning[{extra}]'."
        raise problem(where, f"needs the package {error.name}", hint=hint) from error


def closest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'?" if close else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known one, and the list of all."""
    choices = sorted(known)
    listed = f"Known: {', '.join(choices)}." if choices else ""
    return f"{closest(name, choices)} {listed}".strip()
