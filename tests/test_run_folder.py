"""How a run stands, and who may work on it."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from smm_lightning.errors import UserError
from smm_lightning.run import folder as run_folder
from smm_lightning.run.folder import RunFolder, State
from smm_lightning.run.result import write_result
from tests.report.made_up import result


def hold(path, ready):
    with RunFolder(path, "key").claimed():
        ready.set()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Another process that works on the run."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", ready))
    process.start()
    assert ready.wait(30)
    yield process
    process.kill()
    process.join()


def test_states_of_a_life(tmp_path):
    run = RunFolder(tmp_path / "run", "key")
    assert run.state() == State("pending")

    def work():
        with run.claimed():
            assert run.state().name == "running"
            raise ZeroDivisionError("division by zero\nand more")

    with pytest.raises(ZeroDivisionError):
        work()
    failed = run.state()
    assert (failed.name, failed.reason) == ("failed", "ZeroDivisionError: division by zero")
    with pytest.raises(SystemExit), run.claimed():
        raise SystemExit(143)
    assert (run.state().name, run.state().reason) == ("interrupted", "left with exit status 143")
    with run.claimed():
        write_result(run.path, {**result(), "run_key": "key"})
    assert run.state().name == "done"
    assert RunFolder(run.path, "another").state().name == "pending"


def test_a_user_error_is_named_by_its_first_line(tmp_path):
    run = RunFolder(tmp_path / "run", "key")
    with pytest.raises(UserError), run.claimed():
        raise UserError("a: is wrong.\nb: too.")
    assert run.state().reason == "a: is wrong."


def test_two_processes_never_work_on_one_run(tmp_path, holder, monkeypatch):
    run = RunFolder(tmp_path / "run", "key")
    assert run.state().name == "running"
    assert f"process {holder.pid} on" in run.state().reason
    monkeypatch.setattr(run_folder, "_PATIENCE_S", 0.2)
    with pytest.raises(UserError, match=r"another process is working on this run"), run.claimed():
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert run.state().name == "killed"
    with run.claimed():  # the kernel has freed the lock
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "failed"}'])
def test_a_broken_note_counts_as_none(tmp_path, content):
    (tmp_path / "state.json").write_text(content)
    assert RunFolder(tmp_path, "key").state() == State("pending")


def test_only_the_folder_of_a_run_that_never_began_is_discarded(tmp_path):
    run = RunFolder(tmp_path / "run", "key")
    run.discard_if_empty()
    with run.claimed():
        (run.path / ".hydra").mkdir()
        (run.path / ".hydra/config.yaml").touch()
    run.note("failed", "before it began")
    (run.path / "last.ckpt").touch()
    run.discard_if_empty()
    assert run.checkpoint.exists()
    run.checkpoint.unlink()
    run.discard_if_empty()
    assert not run.path.exists()


def test_what_killed_writers_left_is_gone_when_the_run_goes_on(tmp_path):
    """A process that is killed within a write, as a run that saves its checkpoint is."""
    for name in ("last.ckpt", "best.ckpt"):
        code = (
            "import os, signal, sys, pathlib; from smm_lightning.files import write_atomically; "
            "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); "
            f"write_atomically(pathlib.Path(sys.argv[1]) / '{name}', b'x')"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
        assert done.returncode == -signal.SIGKILL
    (tmp_path / "last.ckpt").write_bytes(b"good")
    assert len(list(tmp_path.iterdir())) == 3
    with RunFolder(tmp_path, "key").claimed():
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", ".lock"}


def test_the_note_is_plain_json(tmp_path):
    run = RunFolder(tmp_path, "key")
    run.note("failed", "why")
    note = json.loads((tmp_path / "state.json").read_text())
    assert {k: note[k] for k in ("state", "reason", "run_key")} == {
        "state": "failed",
        "reason": "why",
        "run_key": "key",
    }
