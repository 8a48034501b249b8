"""``smm clean`` lists first, and deletes what no run needs."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from filelock import FileLock

from smm_lightning.run.clean import of_builds
from smm_lightning.run.folder import RunFolder
from smm_lightning.train import train
from tests.hostile import answer_of
from tests.test_habits import SMALL

BUILD = "x-train-8px-a08233859763.partial"


@pytest.fixture
def place(composed, tmp_path, capfd):
    """Two runs with caches of their own, everything that may be left, and what is not ours."""
    for images in (60, 80):
        cfg = composed(*SMALL, "epochs=1", f"dataset.train_images={images}")
        train(cfg)
    caches, runs = tmp_path / "image_cache", tmp_path / "runs"
    (caches / BUILD).mkdir()
    for name, state in (("never", "interrupted"), ("failed", "failed")):
        RunFolder(runs / name, "k").path.mkdir()
        RunFolder(runs / name, "k").note(state, "no images")
    for name, age in ((".result.json.old.tmp", 9000), (".result.json.new.tmp", 0)):
        file = Path(cfg.paths.run) / name
        file.write_bytes(b"half")
        os.utime(file, (time.time() - age,) * 2)
    for name in ("film.partial", "notes", "x-train-8px-short", "x-train-8px-a08233859763.mine"):
        (caches / name).mkdir()
    (caches / "mine.lock").touch()
    (runs / "other").mkdir()
    (runs / "other/state.json").write_text('{"epoch": 3}')
    (runs / ".mine.tmp").write_text("of somebody else")
    os.utime(runs / ".mine.tmp", (0, 0))
    capfd.readouterr()
    return tmp_path


def clean(place, *words):
    answer = answer_of(
        "clean", f"paths.root={place}/runs", f"paths.image_cache={place}/image_cache", *words
    )
    assert answer == 0


def content(place):
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def listed(capfd, place):
    lines = [line.split("  (") for line in capfd.readouterr().out.splitlines() if " MB  " in line]
    return {
        str(Path(line.split(" MB  ")[1]).relative_to(place)): reason.strip(")")
        for line, reason in lines
    }


def left(place):
    (old,) = place.rglob(".result.json.old.tmp")
    return {
        f"image_cache/{BUILD}": "a build that was killed",
        "runs/never": "a run that never began",
        str(old.relative_to(place)): "a writer was killed",
    }


def test_it_lists_and_deletes_only_when_told(place, capfd):
    before, expected = content(place), left(place)
    clean(place, "--caches")
    assert listed(capfd, place) == expected
    assert content(place) == before
    clean(place, "--caches", "--yes")
    assert listed(capfd, place) == expected
    gone = before - content(place)
    assert {name for name in gone if not name.startswith("runs/never/")} == expected.keys()
    clean(place, "--yes")
    assert "nothing to delete" in capfd.readouterr().out


def of_images(place, count):
    (run,) = [
        file.parent
        for file in place.rglob("result.json")
        if json.loads(file.read_text())["data/images"]["train"] == count
    ]
    return run


def test_a_cache_goes_with_the_last_run_that_used_it(place, capfd, composed):
    clean(place, "--yes")
    shutil.rmtree(of_images(place, 80))
    capfd.readouterr()
    clean(place)  # runs elsewhere may use it
    assert "nothing to delete" in capfd.readouterr().out
    clean(place, "--caches")
    (cache,) = listed(capfd, place)
    assert cache.startswith("image_cache/digits-train-8px-")
    clean(place, "--caches", "--yes")
    assert not (place / cache).exists()
    train(composed(*SMALL, "epochs=1", "force=true"))  # the other one still has its cache
    assert "Decoding" not in capfd.readouterr().err


def test_caches_of_an_interrupted_run_stay(place, capfd):
    clean(place, "--yes")
    for file in place.rglob("result.json"):
        file.unlink()
        RunFolder(file.parent, "k").note("interrupted", "Ctrl-C")
    capfd.readouterr()
    clean(place, "--caches")
    assert "nothing to delete" in capfd.readouterr().out


def test_nothing_goes_that_a_process_works_with(place, capfd):
    lock = FileLock(place / f"image_cache/{BUILD}".replace(".partial", ".lock"))
    run, expected = RunFolder(place / "runs/never", "k"), left(place)
    with lock, run.claimed():
        shutil.rmtree(of_images(place, 60))
        clean(place, "--caches", "--yes")
        assert len(listed(capfd, place)) == len(expected) - 2
    shown = list(of_builds(place / "image_cache"))  # a build that began after the look
    with lock:
        assert [one.delete() for one in shown] == [False]
    assert shown[0].path.exists()
