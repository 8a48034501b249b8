"""``smm clean`` lists first, and deletes what no run needs."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from filelock import FileLock

from smm_lightning.run.folder import RunFolder
from smm_lightning.train import train
from tests.hostile import answer_of
from tests.test_habits import SMALL


@pytest.fixture
def place(composed, tmp_path, capfd):
    """Two runs with caches of their own, and everything that may be left."""
    for images in (60, 80):
        cfg = composed(*SMALL, "epochs=1", f"dataset.train_images={images}")
        train(cfg)
    (tmp_path / "image_cache/x-train-8px-1.partial").mkdir()
    (tmp_path / "image_cache/x-train-8px-2.lock").touch()
    RunFolder(tmp_path / "runs/never", "k").path.mkdir()
    RunFolder(tmp_path / "runs/never", "k").note("failed", "no images")
    for name, age in ((".result.json.old.tmp", 9000), (".result.json.new.tmp", 0)):
        file = tmp_path / "runs" / name
        file.write_bytes(b"half")
        os.utime(file, (time.time() - age,) * 2)
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


LEFT = {
    "image_cache/x-train-8px-1.partial": "a build that was killed",
    "image_cache/x-train-8px-2.lock": "of a cache that is gone",
    "runs/never": "a run that never began",
    "runs/.result.json.old.tmp": "a writer was killed",
}


def test_it_lists_and_deletes_only_when_told(place, capfd):
    before = content(place)
    clean(place)
    assert listed(capfd, place) == LEFT
    assert content(place) == before
    clean(place, "--yes")
    assert listed(capfd, place) == LEFT
    gone = before - content(place)
    assert {name for name in gone if not name.startswith("runs/never/")} == LEFT.keys()
    clean(place, "--yes")
    assert "nothing to delete" in capfd.readouterr().out


def test_a_cache_goes_with_the_last_run_that_used_it(place, capfd, composed):
    clean(place, "--yes")
    (run,) = [
        file.parent
        for file in place.rglob("result.json")
        if json.loads(file.read_text())["data/images"]["train"] == 80
    ]
    shutil.rmtree(run)
    capfd.readouterr()
    clean(place)
    (cache,) = listed(capfd, place)
    assert cache.startswith("image_cache/digits-train-8px-")
    clean(place, "--yes")
    assert not (place / cache).exists()
    train(composed(*SMALL, "epochs=1", "force=true"))  # the other one still has its cache
    assert "Decoding" not in capfd.readouterr().err


def test_caches_of_an_interrupted_run_stay(place, capfd):
    clean(place, "--yes")
    for file in place.rglob("result.json"):
        file.unlink()
        RunFolder(file.parent, "k").note("interrupted", "Ctrl-C")
    capfd.readouterr()
    clean(place)
    assert "nothing to delete" in capfd.readouterr().out


def test_nothing_goes_that_a_process_works_with(place, capfd):
    lock = FileLock(place / "image_cache/x-train-8px-1.lock")
    run = RunFolder(place / "runs/never", "k")
    with lock, run.claimed():
        shutil.rmtree(next(file.parent for file in place.rglob("result.json")))
        clean(place, "--yes")
        left = listed(capfd, place)
    assert set(left) == {"image_cache/x-train-8px-2.lock", "runs/.result.json.old.tmp"}
