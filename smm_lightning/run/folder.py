"""The folder of a run: one process at a time works in it, and others see how it stands."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from smm_lightning.errors import UserError, one_line, problem
from smm_lightning.files import read_json, remove_unfinished, write_atomically
from smm_lightning.run.result import FILE, read_result
from smm_lightning.text import in_a_line

STATES = ("done", "running", "interrupted", "failed", "killed", "pending")
STATE = "state.json"
LOCK = ".lock"
MICRO_BATCH = "micro_batch.json"  # what micro_batch=auto found
_PATIENCE_S = 10  # readers of a killed run notice within five seconds, and hold its lock until then
# What a run leaves that never began.
NEVER_BEGAN = {".hydra", "train.log", STATE, LOCK}


@dataclass(frozen=True)
class State:
    """How a run stands.

    Attributes:
        name: one of :data:`STATES`. ``killed``: it ended without a word (SIGKILL, power, or
            the stall alarm of a run that is no job of a sweep).
        reason: of a failure or an interruption, in one line.
        since: seconds since 1970 when it came about, of a killed run the time of its last batch;
            ``None`` where nobody wrote it down.
    """

    name: str
    reason: str = ""
    since: float | None = None


class RunFolder:
    """A folder that belongs to one configuration.

    Args:
        path: of the folder.
        key: of the run, see ``run_key``.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key

    @property
    def checkpoint(self) -> Path:
        """Where the state to go on from is kept."""
        return self.path / "last.ckpt"

    def result(self) -> dict[str, Any] | None:
        """The result if the run is finished: it is there, is whole and carries the run's key."""
        return read_result(self.path, self.key)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Work in the folder alone; how that ends is written down.

        The lock is the kernel's (flock), so it ends with the process, however that ends.

        Raises:
            UserError: If another process is working in it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=_PATIENCE_S)
        except Timeout:
            hint = "Wait until it is done; `smm status` shows how it stands."
            raise problem(
                "paths.run", "another process is working on this run", str(self.path), hint
            ) from None
        try:
            remove_unfinished(self.path)
            self.note("running", f"process {os.getpid()} on {socket.gethostname()}")
            yield
            (self.path / STATE).unlink(missing_ok=True)  # result.json says the rest
        except BaseException as error:
            ended_by_hand = isinstance(error, SystemExit | KeyboardInterrupt)
            with suppress(OSError):  # a full disk, say: the error itself counts
                self.note("interrupted" if ended_by_hand else "failed", one_line(error))
            raise
        finally:
            lock.release()

    def require_same_run(self) -> None:
        """Refuse a folder that another configuration's run lies in, which ``paths.run`` can name.

        Raises:
            UserError: If there is one.
        """
        for name in (FILE, STATE):
            try:
                key = read_json(self.path / name)["run_key"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if key != self.key:
                raise other_run(self.path)

    def begin_anew(self) -> None:
        """Forget what an earlier run left: the result first, so that no other weights carry it."""
        for name in (FILE, "last.ckpt", "best.ckpt", "epochs.csv", MICRO_BATCH):
            (self.path / name).unlink(missing_ok=True)

    def note(self, state: str, reason: str) -> None:
        """Write down how the run stands.

        Raises:
            OSError: If the folder cannot be written.
        """
        content = {"state": state, "reason": reason, "since": time.time(), "run_key": self.key}
        write_atomically(self.path / STATE, json.dumps(content, indent=2).encode())

    def note_batch(self) -> None:
        """Let the time of the note be that of the last batch."""
        with suppress(OSError):  # a fast development run has no note
            os.utime(self.path / STATE)

    def state(self) -> State:
        """How the run stands, without disturbing it."""
        if self.result() is not None:
            return State("done", since=(self.path / "result.json").stat().st_mtime)
        try:
            note = read_json(self.path / STATE)
            last_batch = (self.path / STATE).stat().st_mtime
            kind = STATES[STATES.index(note["state"])]
            noted = State(kind, in_a_line(note["reason"]), float(note["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            noted = State("pending")
        if is_locked(self.path / LOCK):
            return State("running", noted.reason, noted.since)
        if noted.name == "running":
            seen = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last_batch))
            reason = f"ended without a word, last seen {seen}: {noted.reason}"
            return State("killed", reason, last_batch)
        return noted

    def discard_if_empty(self) -> None:
        """Remove the folder of a run that never began."""
        if self.path.is_dir() and {path.name for path in self.path.iterdir()} <= NEVER_BEGAN:
            for path in sorted(self.path.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            self.path.rmdir()


def other_run(folder: Path) -> UserError:
    """The error of a folder that another configuration's run lies in."""
    hint = "force=true begins anew in it; another paths.run keeps both."
    return problem("paths.run", "holds the run of another configuration", str(folder), hint)


def is_locked(lock: Path) -> bool:
    """Whether a process holds a lock, without disturbing it."""
    if not lock.exists():
        return False
    try:
        import fcntl
    except ImportError:  # Windows, where looking at a lock means taking it
        return _is_taken(FileLock(lock))
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def _is_taken(lock: FileLock) -> bool:
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
