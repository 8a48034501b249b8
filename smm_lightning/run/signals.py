"""Signals that end a run, and the alarm for one that no longer moves."""

import faulthandler
import math
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn, Self

# Windows has neither the last of these nor an alarm; there, a signal waits until the step is done.
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name)
)
_HAS_ALARM = hasattr(signal, "SIGALRM")
_STEP_S = 8  # how long a signal waits for the end of a training step
_REARM_S = 1  # the least time between two settings of the stall alarm, each of which takes a thread


class RunSignals:
    """Ends a run in order: after the training step at hand, or at once where there is none.

    SIGTERM and Ctrl-C leave with the exit statuses that shells know, 143 and 130. SIGUSR2 is how
    SLURM announces the end of an allocation through submitit, whose own handler, if there is one,
    is called last: it puts the job back into the queue. A second signal does not wait.

    A process that is there for this run alone ends with the traceback of every thread and exit
    status 1 when no batch comes for too long, also where it hangs inside a library.

    In a thread other than the main one, where Python allows no handlers, signals do nothing.

    Args:
        stall_s: seconds without a batch after which the process ends.
        alone: whether it may.
        note: writes down that a batch came.
    """

    def __init__(
        self, stall_s: float, *, alone: bool, note: Callable[[], None] = lambda: None
    ) -> None:
        self.stall_s = stall_s
        self.alone = alone
        self.note = note
        self.received: int | None = None
        self.in_step = False
        self._before: dict[int, Any] = {}
        self._armed = -math.inf

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                self._before[number] = signal.signal(number, self._end)
            if _HAS_ALARM:
                self._before[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._waited)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._before and _HAS_ALARM:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if self.alone:
            faulthandler.cancel_dump_traceback_later()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        before, self._before = self._before, {}
        # Lightning, too, looks whether SIGTERM came, and then leaves without an exit status.
        if self.received is not None and isinstance(error, SystemExit) and not error.code:
            self._leave(self.received, before)

    def progressed(self) -> None:
        """A batch came: from now on the next one is waited for."""
        now = time.monotonic()
        if now < self._armed + min(_REARM_S, self.stall_s / 4):
            return
        self._armed = now
        self.note()
        if self.alone:
            faulthandler.dump_traceback_later(self.stall_s, exit=True)

    def leave(self) -> NoReturn:
        """End the run with the exit status of the signal that came.

        Raises:
            SystemExit: Always.
        """
        assert self.received is not None
        self._leave(self.received, self._before)

    @staticmethod
    def _leave(number: int, handlers: dict[int, Any]) -> NoReturn:
        handler = handlers.get(number)
        if number == getattr(signal, "SIGUSR2", None) and callable(handler):
            handler(number, None)
        raise SystemExit(128 + number)

    def _end(self, number: int, _: FrameType | None) -> None:
        wait = self.in_step and self.received is None
        self.received = number
        if not wait:
            self.leave()
        if _HAS_ALARM:
            signal.setitimer(signal.ITIMER_REAL, _STEP_S)

    def _waited(self, *_: object) -> None:
        self.leave()
