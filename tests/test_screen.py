"""What happens to the screen ends no run: closed, full, left, or without a letter."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from tests.hostile import SMALL
from tests.programs import run_program

RUN = (*SMALL, "epochs=2", "paths.run=run")


@pytest.fixture
def images(good, tmp_path):
    """Forty, whose names are not of ASCII."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(40):
        (folder / f"\xfc{number}.png").write_bytes((good / "image.png").read_bytes())
    return folder


@pytest.mark.parametrize("screen", ["/dev/full", "closed", "left"])
def test_a_training_ends_whatever_the_screen(screen, tmp_path):
    left = []
    if screen == "left":
        os.mkfifo(tmp_path / "pipe")
        screen = str(tmp_path / "pipe")
        reader = Thread(target=read_a_line, args=(screen, left))
        reader.start()
    done = run_program(*RUN, cwd=tmp_path, screen=screen)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert len(result["history"]) == 2
    assert "Traceback" not in done.stderr
    if screen == "closed":
        assert done.returncode == 0
    else:
        assert done.returncode == 1
    said = "error: standard output was lost ([Errno 28] No space left on device)\n"
    assert done.stderr.endswith(said) == (screen == "/dev/full")
    assert len(left) == (screen not in ("/dev/full", "closed"))


def read_a_line(place, lines):
    """As ``head -1``."""
    with Path(place).open() as file:
        lines.append(file.readline())


def test_a_sweep_on_a_full_screen_counts_no_job_as_failed(tmp_path):
    sweep = ("-m", *SMALL, "epochs=1", "seed=1", "paths.root=runs")
    done = run_program(*sweep, cwd=tmp_path, screen="/dev/full")
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1
    assert not list(tmp_path.glob("runs/*/state.json"))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_letters_are_replaced_on_the_screen(encoding, good, images, tmp_path):
    words = ("predict", good / "runs/good", images, "--format", "csv")
    shown = started(*words, cwd=tmp_path, encoding=encoding).decode(encoding)
    assert ("\xfc0.png" in shown) == (encoding == "cp1252")
    assert ("\\xfc0.png" in shown) == (encoding == "ascii")
    assert shown.count(".png") == 40


def test_letters_are_kept_in_files(good, images, tmp_path):
    words = ("predict", good / "runs/good", images, "--format", "csv", "--output", "rows.csv")
    started(*words, cwd=tmp_path, encoding="ascii")
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 40
    assert all("\xfc" in row["file"] for row in rows)


def test_a_report_is_printed_in_ascii(good, tmp_path):
    shutil.copytree(good / "runs/good", tmp_path / "runs/good")
    shown = started("report", "runs", cwd=tmp_path, encoding="ascii").decode("ascii")
    assert "# Runs in runs" in shown
    text = (tmp_path / "runs/reports/Runs_in_runs/report.md").read_text(encoding="utf-8")
    assert shown.splitlines()[0] == text.splitlines()[0]


def started(*words, cwd, encoding):
    """A program of its own, because Python chooses the encoding when it starts."""
    environment = {"PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "smm_lightning", *map(str, words)]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
