"""A disk that is full while a checkpoint is written costs no state that was good before."""

import subprocess

import pytest

from smm_lightning.run.checkpoint import read_checkpoint
from tests import faults
from tests.resume.killing import BASE, differences, outcome, run_through, start


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB; the temporary folder lies on another one."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(options, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_the_previous_checkpoint_loads_and_the_run_ends_equal(tmp_path, small_disk, monkeypatch):
    monkeypatch.setenv("TMPDIR", "/dev/shm")
    log = tmp_path / "log"
    shared = (*BASE, "method=full", f"paths.image_cache={tmp_path}/image_cache")
    whole, cut = (*shared, f"paths.root={tmp_path}/whole"), (*shared, f"paths.root={small_disk}")
    run_through(whole, log)
    process = start((*cut, *faults.overrides({0: "full disk"})), log)
    process.join()
    assert process.exitcode == 1
    assert "No space left on device" in log.read_text()
    (last,) = small_disk.glob("*/last.ckpt")
    assert read_checkpoint(last)["epoch"] == 0
    (small_disk / "filler").unlink()
    run_through(cut, log)
    assert f"going on from {last}" in log.read_text()
    assert differences(outcome(tmp_path / "whole"), outcome(small_disk)) == []
