"""Signals end a run after its step; a run that does not move fails."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smm_lightning import train as entry
from smm_lightning.run.folder import RunFolder
from smm_lightning.run.signals import RunSignals, StalledError
from tests.test_train import SMALL


@pytest.mark.parametrize(("number", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_outside_of_a_step_a_signal_ends_at_once(number, status):
    with RunSignals(60, alone=False), pytest.raises(SystemExit) as error:
        os.kill(os.getpid(), getattr(signal, number))
    assert error.value.code == status


def test_in_a_step_a_signal_waits_and_a_second_one_does_not():
    with RunSignals(60, alone=False) as signals:
        signals.in_step = True
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_step_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr("smm_lightning.run.signals._STEP_S", 0.1)
    with RunSignals(60, alone=False) as signals:
        signals.in_step = True
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit):
            time.sleep(5)


def test_the_clusters_own_handler_is_called_last():
    calls = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: calls.append(number))
    try:
        with RunSignals(60, alone=False) as signals:
            signals.in_step = True
            os.kill(os.getpid(), signal.SIGUSR2)
            assert calls == []
            with pytest.raises(SystemExit) as error:
                signals.leave()
        assert calls == [signal.SIGUSR2]
        assert error.value.code == 128 + signal.SIGUSR2
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_no_progress_is_a_failure_and_progress_is_none():
    count = [0]
    with RunSignals(0.2, alone=False) as signals:
        signals.watch(lambda: count[0])
        for _ in range(5):
            count[0] += 1
            time.sleep(0.15)
        with pytest.raises(StalledError, match=r"no batch for 0.2 s"):
            time.sleep(5)


def test_handlers_are_put_back():
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    with RunSignals(0.1, alone=False) as signals:
        signals.watch(lambda: 0)
    time.sleep(0.2)  # the alarm is off, too
    assert before == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]


def test_a_hang_that_swallows_the_alarm_ends_the_process_with_tracebacks():
    code = """
import ctypes, signal
from smm_lightning.run.signals import RunSignals
with RunSignals(0.2, alone=True) as signals:
    signals.watch(lambda: 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    ctypes.PyDLL(None).sleep(30)  # holds the interpreter's lock, as a hang in a library may
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "<module>" in done.stderr


@pytest.mark.parametrize(
    "hook",
    [
        *("setup", "on_fit_start", "on_train_start", "on_train_epoch_start"),
        *("on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "on_train_end"),
        *("on_validation_start", "on_validation_batch_end", "on_validation_end"),
        *("on_save_checkpoint", "teardown"),
    ],
)
def test_a_run_that_is_asked_to_end_says_so_at_any_instant(composed, hook):
    """Lightning answers SIGTERM at some of them, with an exit status of its own: none."""
    asked = f"+callbacks.asked={{_target_:tests.faults.AskedToEnd,hook:{hook}}}"
    cfg = composed(*SMALL, "epochs=2", asked)
    with pytest.raises(SystemExit) as error:
        entry.train(cfg)
    assert error.value.code == 143
    state = RunFolder(Path(cfg.paths.run), "").state()
    assert (state.name, state.reason) == ("interrupted", "left with exit status 143")
