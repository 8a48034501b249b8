"""One job of a sweep: a program of its own.

Which jobs there are and where they run is Hydra's business: its sweeper and its launchers.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from smm_lightning.errors import RunEndedError
from smm_lightning.run.context import RunContext
from smm_lightning.run.signals import ENDING

_IN_SWEEP = "SMM_JOB_OF"  # in the environment of such a program: the process that started it
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def run_alone(overrides: Sequence[str], run: RunContext) -> dict[str, Any] | None:
    """Run one job as a program of its own, and wait for it.

    It has its own memory, environment and signals: whatever happens to it, the sweep goes on.

    Args:
        overrides: of this job, as on the command line.
        run: its folder and what was asked.

    Returns:
        Its result; ``None`` of a fast development run, which has none.

    Raises:
        RunEndedError: If it has none; the folder says why.
        SystemExit: If this process was asked to end; the job was asked, too, and has ended.
    """
    command = [sys.executable, "-m", "smm_lightning", "train", *overrides, "hydra.mode=RUN"]
    environment = {**os.environ, _IN_SWEEP: str(os.getpid()), "PYTHONPATH": _this_code_first()}
    with (
        subprocess.Popen(  # noqa: S603 - our own program
            command, env=environment, stdin=subprocess.DEVNULL
        ) as job,
        _passing_signals_on(job) as received,
    ):
        status = job.wait()
    if received:
        raise SystemExit(128 + received[0])
    folder, result = run.folder, run.folder.result()
    if status == 0 and (result is not None or run.dry):
        return result
    state = folder.state()
    if state.name in ("pending", "done"):  # it never began, or only a part of it failed
        folder.note("failed", f"it left with exit status {status}")
    elif status == 1 and state.name == "killed" and time.time() - (state.since or 0) >= run.stall_s:
        folder.note("failed", f"no batch for {run.stall_s:g} s (stall_minutes)")
    state = folder.state()
    how = f" (signal {signal.Signals(-status).name})" if status < 0 else ""
    message = f"{folder.path.name} {state.name}{how}: {state.reason}"
    raise RunEndedError(message)


def _this_code_first() -> str:
    """Search path with this very package, which another installed checkout must not replace."""
    place = str(Path(__file__).parent.parent.parent)
    return os.pathsep.join([place, *filter(None, [os.environ.get("PYTHONPATH")])])


def is_alone_in_process() -> bool:
    """Whether this job of a sweep already is alone in its process: submitit starts one for each."""
    return "SUBMITIT_EXECUTOR" in os.environ


def is_job() -> bool:
    """Whether this process was started by :func:`run_alone`."""
    return _IN_SWEEP in os.environ


def end_with_the_sweep() -> None:
    """A job that outlived its sweep would train on unseen: ask the system for a SIGTERM then."""
    if not is_job() or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(os.environ[_IN_SWEEP]):  # it ended before we asked
        sys.exit(128 + signal.SIGTERM)


@contextmanager
def _passing_signals_on(job: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """Hand SIGTERM and SIGUSR2 to the job; a terminal's Ctrl-C reaches it by itself."""
    received: list[int] = []

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        if number != signal.SIGINT:
            job.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, pass_on) for number in ENDING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def searches() -> bool:
    """Whether what the jobs return decides which come next."""
    known = HydraConfig.initialized()
    return known and not HydraConfig.get().sweeper._target_.endswith("BasicSweeper")


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Compute on ``number`` CPU threads; ``None`` leaves the choice to PyTorch."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
