"""Signals end a run after its step; a run that does not move fails."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from smm_lightning import train as entry
from smm_lightning.run.folder import RunFolder
from smm_lightning.run.signals import RunSignals
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


def test_handlers_are_put_back():
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]
    with RunSignals(60, alone=False):
        pass
    assert before == [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)]


def run_with_alarm(body):
    code = f"""
import ctypes, time
from smm_lightning.run import signals as module
module._REARM_S = 0
with module.RunSignals(0.4, alone=True, note=lambda: print("noted")) as signals:
{textwrap.indent(textwrap.dedent(body), "    ")}
time.sleep(0.6)
print("over")
"""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_a_run_without_a_batch_ends_with_tracebacks_wherever_it_hangs():
    # ctypes.PyDLL holds the interpreter's lock, as a hang in a library may.
    done = run_with_alarm("signals.progressed()\nctypes.PyDLL(None).sleep(30)")
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "<module>" in done.stderr


def test_a_batch_begins_the_alarm_anew_and_the_end_of_a_run_takes_it_away():
    done = run_with_alarm("for _ in range(4):\n    signals.progressed()\n    time.sleep(0.2)")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [*["noted"] * 4, "over"]


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
