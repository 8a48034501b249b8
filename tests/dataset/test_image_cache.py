"""Caches that are built at once, interrupted, damaged, or have no room."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smm_lightning.dataset import ImageDataModule, ImageFolder
from smm_lightning.dataset import image_cache as cache_module
from smm_lightning.dataset import image_cache_builder as builder_module
from smm_lightning.dataset.image_cache import DamagedCacheError, ImageCache
from smm_lightning.dataset.image_cache_builder import Content, open_or_build
from smm_lightning.dataset.splits import FileSplit
from smm_lightning.errors import UserError
from tests.dataset import miniatures

ROOT = Path(__file__).parent.parent.parent
COUNT = 150  # two chunks and a part of a third


@pytest.fixture
def split(tmp_path):
    names = [f"{number}.png" for number in range(COUNT)]
    for number, name in enumerate(names):
        miniatures.write(tmp_path / "files" / name, miniatures.encoded(number, "PNG"))
    labels = [number % 3 for number in range(COUNT)]
    return FileSplit("some/train", tmp_path / "files", names, labels)


def content(split, size=16):
    return Content(split, np.arange(0, COUNT, 1), ["a", "b", "c"], size)


def test_a_cache_holds_what_pil_makes(split, tmp_path):
    chosen = np.array([3, 50, 149])
    made = Content(split, chosen, ["a", "b", "c"], 24)
    cache = open_or_build(tmp_path / "cache", lambda: made, 0)
    assert cache.images.shape == (3, 24, 24, 3)
    assert cache.index.tolist() == [3, 50, 149]
    assert cache.labels.tolist() == [0, 2, 2]
    assert cache.class_names == ["a", "b", "c"]
    for row, number in enumerate(chosen):
        image = Image.fromarray(miniatures.pixels(number))
        expected = image.resize((24, 24), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(cache.images[row], np.asarray(expected))
    assert sorted(path.name for path in cache.folder.iterdir()) == ["cache.json", "images.u8"]


def test_equal_images_have_equal_digests_wherever_they_lie(split, tmp_path):
    def digest(**changes):
        facts = {"split": split, "size": 16, "chosen": np.arange(COUNT), **changes}
        made = Content(class_names=facts.pop("class_names", ["a", "b", "c"]), **facts)
        folder = tmp_path / f"cache {len(list(tmp_path.iterdir()))}"
        return open_or_build(folder, lambda: made, 0).digest

    first = digest()
    moved = tmp_path / "elsewhere"
    shutil.copytree(split.root, moved)  # with other times
    assert digest(split=FileSplit("x", moved, split.names, split.labels)) == first
    assert digest(size=24) == first  # of the stored pixels
    assert digest(chosen=np.arange(COUNT - 1)) != first
    assert digest(class_names=["a", "b", "d"]) != first
    assert digest(split=FileSplit("x", moved, split.names, split.labels[::-1])) != first
    (moved / "3.png").write_bytes((moved / "4.png").read_bytes())
    assert digest(split=FileSplit("x", moved, split.names, split.labels)) != first


def test_hashes_are_of_pixels_not_of_files(split, tmp_path):
    with Image.open(split.root / "5.png") as image:
        image.save(split.root / "6.png", compress_level=1)
        image.transpose(Image.Transpose.ROTATE_90).save(split.root / "7.png")
    assert (split.root / "5.png").read_bytes() != (split.root / "6.png").read_bytes()
    hashes = open_or_build(tmp_path / "cache", lambda: content(split), 0).hashes
    assert hashes[5] == hashes[6] != hashes[7]
    assert len(set(hashes.tolist())) == COUNT - 1


def test_a_cache_is_read_only_and_decoded_once(split, tmp_path):
    cache = open_or_build(tmp_path / "cache", lambda: content(split), 0)
    with pytest.raises(ValueError, match=r"read-only"):
        cache.images[0] = 0

    def never():
        raise AssertionError

    again = open_or_build(tmp_path / "cache", never, 0)
    np.testing.assert_array_equal(again.images, cache.images)


def test_several_processes_build_the_same_cache_as_one(split, tmp_path, monkeypatch):
    monkeypatch.setattr(builder_module, "_WORTH_PROCESSES", 1)
    caches = [open_or_build(tmp_path / f"{n}", lambda: content(split), n) for n in (0, 2)]
    assert (tmp_path / "0/images.u8").read_bytes() == (tmp_path / "2/images.u8").read_bytes()
    assert caches[0].checksums == caches[1].checksums


def test_all_broken_images_are_listed_and_leave_nothing(split, tmp_path):
    paths = [split.root / name for name in split.names]
    good = paths[7].read_bytes()
    for number in (7, 130):
        paths[number].write_bytes(good[:80])
    with pytest.raises(UserError) as error:
        open_or_build(tmp_path / "cache", lambda: content(split), 0)
    assert [line.split(" ")[0] for line in error.value.problems] == [
        "some/train[7]",
        "some/train[130]",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"files", "cache.lock"}


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused(mode, tmp_path):
    Image.new(mode, (9, 9), 3).save(tmp_path / "deep.tif")
    with pytest.raises(UserError, match=r"deep.tif: has more than 8 bits a channel"):
        FileSplit("some/train", tmp_path, ["deep.tif"], [0]).read(0)


def damages(folder):
    images, facts = folder / "images.u8", folder / "cache.json"

    def truncate():
        images.write_bytes(images.read_bytes()[:-1])

    def flip():
        changed = bytearray(images.read_bytes())
        changed[1000] ^= 1
        images.write_bytes(changed)

    def rot():  # as a failing disk would, without a trace in the file's time
        time = images.stat().st_mtime_ns
        flip()
        os.utime(images, ns=(time, time))

    def relabel():
        facts.write_text(facts.read_text().replace("[0, 1, 2,", "[1, 1, 2,"))

    def cut_facts():
        facts.write_text(facts.read_text()[:100])

    def empty_facts():
        facts.write_text("[]")

    return [truncate, flip, rot, relabel, cut_facts, empty_facts]


@pytest.mark.parametrize("which", range(6))
def test_a_damaged_cache_is_found_and_built_anew(which, split, tmp_path, caplog):
    folder = tmp_path / "cache"
    before = np.array(open_or_build(folder, lambda: content(split), 0).images)
    damages(folder)[which]()
    with pytest.raises(DamagedCacheError):
        ImageCache(folder)
    cache = open_or_build(folder, lambda: content(split), 0)
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(cache.images, before)
    assert cache.labels[0] == 0


def test_a_large_cache_is_verified_when_its_time_is_another(split, tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_QUICKLY_VERIFIED", 0)
    folder = tmp_path / "cache"
    open_or_build(folder, lambda: content(split), 0)
    verified = []
    verify = ImageCache.verify
    monkeypatch.setattr(ImageCache, "verify", lambda cache: (verified.append(1), verify(cache)))
    ImageCache(folder)
    assert not verified
    os.utime(folder / "images.u8", ns=(1, 1))  # as a copy has it
    ImageCache(folder)
    assert verified
    images = bytearray((folder / "images.u8").read_bytes())
    images[-1] ^= 1
    (folder / "images.u8").write_bytes(images)
    with pytest.raises(DamagedCacheError, match=r"altered after it was written .chunk 2"):
        ImageCache(folder)


def test_what_a_killed_build_left_is_not_trusted(split, tmp_path):
    partial = tmp_path / "cache.partial"
    partial.mkdir()
    (partial / "images.u8").write_bytes(bytes(COUNT * 16 * 16 * 3))
    (partial / "cache.json").write_text("{}")
    cache = open_or_build(tmp_path / "cache", lambda: content(split), 0)
    whole = open_or_build(tmp_path / "whole", lambda: content(split), 0)
    np.testing.assert_array_equal(cache.images, whole.images)
    assert not partial.exists()


BUILD = """
import sys, time
from pathlib import Path
import numpy as np
from smm_lightning.dataset.image_cache_builder import Content, open_or_build
from smm_lightning.dataset.splits import FileSplit

root, cache, delay = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
class Slow(FileSplit):
    def read(self, index):
        time.sleep(delay)
        with open(root / "log", "a") as log:
            print(index, file=log)
        return super().read(index)
names = [f"{number}.png" for number in range(150)]
split = Slow("some/train", root / "files", names, [number % 3 for number in range(150)])
print("begin", flush=True)
made = open_or_build(cache, lambda: Content(split, np.arange(150), ["a", "b", "c"], 16), 0)
print(int(made.images.sum()))
"""


def start_build(root, cache, delay=0.0, **options):
    command = [sys.executable, "-c", BUILD, str(root), str(cache), str(delay)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_two_processes_build_a_cache_once(split, tmp_path):
    both = [start_build(tmp_path, tmp_path / "cache", 0.002) for _ in range(2)]
    answers = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert answers[0][0] == answers[1][0]
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(COUNT))


def test_a_build_that_is_killed_begins_again(split, tmp_path):
    whole = open_or_build(tmp_path / "whole", lambda: content(split), 0)
    chance = random.Random(0)
    folder = tmp_path / "cache"
    for _ in range(4):
        process = start_build(tmp_path, folder, 0.004)
        assert process.stdout.readline() == "begin\n"
        time.sleep(chance.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start_build(tmp_path, folder)
    assert process.communicate(timeout=120)[0].split()[1] == str(int(whole.images.sum()))
    cache = ImageCache(folder)
    np.testing.assert_array_equal(cache.images, whole.images)
    assert (cache.labels.tolist(), cache.checksums) == (whole.labels.tolist(), whole.checksums)


def test_a_full_disk_is_said_and_leaves_no_cache(split, tmp_path):
    """RLIMIT_FSIZE stands in for the disk: no file may grow beyond it."""
    limit = 60_000  # of 115,200 bytes
    process = start_build(
        tmp_path,
        tmp_path / "cache",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    error = process.communicate(timeout=120)[1]
    assert "paths.image_cache: cannot be written (File too large)" in error
    assert "Make room, or choose another place with paths.image_cache." in error
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "cache.partial").exists()
    assert open_or_build(tmp_path / "cache", lambda: content(split), 0).images.any()


def test_a_folder_that_cannot_be_made_is_said(split, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"paths.image_cache: cannot be written"):
        open_or_build(tmp_path / "file" / "cache", lambda: content(split), 0)


def test_memory_does_not_grow_with_the_cache(tmp_path):
    """Reading a cache of 300 MB takes no memory of its own: its pages are the system's."""
    folder = tmp_path / "cache"
    folder.mkdir()
    count, side = 2_000, 224
    images = np.memmap(folder / "images.u8", np.uint8, "w+", shape=(count, side, side, 3))
    images.flush()
    facts = {
        "shape": images.shape,
        "labels": [0] * count,
        "index": list(range(count)),
        "class_names": ["a"],
        "checksums": [],
        "digest": "",
        "hashes": "",
        "has_groups": False,
        "written_ns": (folder / "images.u8").stat().st_mtime_ns,
    }
    import zlib

    text = json.dumps(facts)
    sealed = {"checksum": zlib.crc32(text.encode()), "facts": text}
    (folder / "cache.json").write_text(json.dumps(sealed))

    def own_memory():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    cache = ImageCache(folder)
    before = own_memory()
    for start in range(0, count, 50):
        cache.images[np.arange(start, start + 50)]
    assert own_memory() - before < 40


@pytest.mark.parametrize("residency", ["device", "memory", "disk", "auto"])
def test_residency_changes_nothing(residency, tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for number in range(4):
                file = tmp_path / "images" / split / name / f"{number}.png"
                miniatures.write(file, miniatures.encoded(number, "PNG"))
    source = ImageFolder(str(tmp_path / "images"))
    options = {
        "batch_size": 3,
        "augmentation": "paper",
        "size": 16,
        "image_cache": tmp_path / "image_cache",
    }

    def batches(residency):
        data = ImageDataModule(source, residency=residency, **options)
        data.setup()
        return list(data.mapping_batches(torch.device("cpu")))

    for one, other in zip(batches("disk"), batches(residency), strict=True):
        assert one["loss_weight"] == other["loss_weight"]
        assert all(torch.equal(one[key], other[key]) for key in ("image", "target", "index"))
