"""Signals that end a run, and the alarm for one that no longer moves."""

import faulthandler
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, Self

# Windows has neither the last of these nor an alarm; there, runs that hang are not given up.
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name)
)
_HAS_ALARM = hasattr(signal, "SIGALRM")
_STEP_S = 8  # how long a signal waits for the end of a training step


class StalledError(Exception):
    """Nothing has moved for too long."""


class RunSignals:
    """Ends a run in order: after the training step at hand, or at once where there is none.

    SIGTERM and Ctrl-C leave with the exit statuses that shells know, 143 and 130. SIGUSR2 is how
    SLURM announces the end of an allocation through submitit, whose own handler, if there is one,
    is called last: it puts the job back into the queue. A second signal does not wait.

    In a thread other than the main one, where Python allows no handlers, it does nothing.

    Args:
        stall_s: seconds without progress after which :class:`StalledError` is raised.
        alone: whether the process may be ended when even that has no effect (a hang inside a
            library), after another ``stall_s`` and with the traceback of every thread.
    """

    def __init__(self, stall_s: float, *, alone: bool) -> None:
        self.stall_s = stall_s
        self.alone = alone
        self.received: int | None = None
        self.in_step = False
        self._before: dict[int, Any] = {}
        self._progress: Callable[[], int] = int
        self._seen = -1

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                self._before[number] = signal.signal(number, self._end)
            if _HAS_ALARM:
                self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._alarm)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._before:
            _alarm_after(0)
        faulthandler.cancel_dump_traceback_later()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        before, self._before = self._before, {}
        # Lightning, too, looks whether SIGTERM came, and then leaves without an exit status.
        if self.received is not None and isinstance(error, SystemExit) and not error.code:
            self._leave(self.received, before)

    def watch(self, progress: Callable[[], int]) -> None:
        """From now on expect movement.

        Args:
            progress: a count that grows while the run moves.
        """
        self._progress, self._seen = progress, progress()
        if self._before:
            _alarm_after(self.stall_s, self.stall_s)
            self._arm_last_resort()

    def leave(self) -> NoReturn:
        """End the run with the exit status of the signal that came.

        Raises:
            SystemExit: Always.
        """
        assert self.received is not None
        self._leave(self.received, self._before)

    @staticmethod
    def _leave(number: int, handlers: dict[int, Any]) -> NoReturn:
        own = handlers.get(number)
        if number == getattr(signal, "SIGUSR2", None) and callable(own):
            own(number, None)
        raise SystemExit(128 + number)

    def _end(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        wait = self.in_step and self.received is None
        self.received = number
        if not wait:
            self.leave()
        _alarm_after(_STEP_S)

    def _alarm(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.received is not None:
            self.leave()
        now = self._progress()
        if now == self._seen:
            message = f"no batch for {self.stall_s:g} s (stall_minutes); the run was given up"
            raise StalledError(message)
        self._seen = now
        self._arm_last_resort()

    def _arm_last_resort(self) -> None:
        if self.alone:
            faulthandler.dump_traceback_later(2.5 * self.stall_s, exit=True)


def _alarm_after(seconds: float, interval: float = 0) -> None:
    if _HAS_ALARM:
        signal.setitimer(signal.ITIMER_REAL, seconds, interval)
