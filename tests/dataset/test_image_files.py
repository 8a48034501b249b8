"""One messy folder, and one answer to which of its files are images."""

import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from smm_lightning import train as entry
from smm_lightning.dataset import ImageFolder
from smm_lightning.dataset import image_files as walk
from smm_lightning.dataset.image_files import Walker
from smm_lightning.errors import UserError
from smm_lightning.figures.trained import TrainedRun
from smm_lightning.inference.predict import files_of
from smm_lightning.report.runs import runs_below
from smm_lightning.run import prepare

READABLE = ("JPG", "jpeg", "jfif", "png", "PNG", "webp", "gif", "bmp", "tif", "tga", "jp2", "ppm")


def picture(path, colour="red", size=(9, 7)):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"jpg": "jpeg", "jfif": "jpeg", "tif": "tiff", "jp2": "jpeg2000"}
    suffix = path.suffix[1:].lower()
    Image.new("RGB", size, colour).save(path, kind.get(suffix, suffix))


def make_messy(folder):
    """Twelve images, and what is none."""
    for number, suffix in enumerate(READABLE):
        picture(folder / f"{number}.{suffix}", (10 * number, 0, 99))
    for name in ("._0.png", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/1.png"):
        picture(folder / name)
    for name in ("Thumbs.db", "paper.pdf", "features.h5", "clip.mpg", "notes.txt", "README"):
        (folder / name).write_bytes(b"something")
    picture(folder / "album.jpg/deep/12.png", "white")
    (folder / "again.png").symlink_to(folder / "3.png")
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "itself").symlink_to("itself")
    os.mkfifo(folder / "pipe.png")


LEFT_OUT = {
    walk.HIDDEN: 4,
    walk.TWICE: 2,
    walk.BROKEN_LINK: 2,
    walk.SPECIAL: 1,
    "no images (.pdf)": 1,
    "no images (.h5)": 1,
    "no images (.mpg)": 1,
    "no images (.txt)": 1,
    "no images (without an ending)": 1,
}


@pytest.fixture
def root(tmp_path):
    for split in ("train", "test"):
        make_messy(tmp_path / "root" / split / "messy")
        for number in range(2):
            picture(tmp_path / "root" / split / "tidy" / f"{number}.png", (number, 200, 0))
    return tmp_path / "root"


def test_what_is_taken_and_what_is_left_out(root):
    (found,) = Walker().below(root / "train/messy")
    names = [path.relative_to(root / "train/messy").as_posix() for path in found.images]
    taken = {f"{n}.{s}" for n, s in enumerate(READABLE)}
    assert sorted(names) == names
    assert set(names) == taken | {"album.jpg/deep/12.png"}
    assert found.counts == LEFT_OUT


def test_every_part_of_the_program_sees_the_same_images(root, composed, capsys):
    """Training, figures, prediction and preparation."""
    options = ["dataset=imagefolder", f"dataset.source.root={root}", "dataset.batch_size=5"]
    cfg = composed(*options, "backbone=tiny", "trainer=cpu", "epochs=1", "protocol=published")
    result = entry.train(cfg)
    assert result["data/images"] == {"train": 15, "test": 15}
    assert [facts["left out"] for facts in result["images"].values()] == [LEFT_OUT, LEFT_OUT]
    said = capsys.readouterr().out
    for reason, count in LEFT_OUT.items():
        assert said.count(f"{count} {reason}") == 2  # once for each split
    ((run,), _) = runs_below(Path(cfg.paths.root))
    trained = TrainedRun(run)
    assert [len(trained.labels(split)) for split in ("train", "test")] == [15, 15]
    assert trained.counts("train").sum() == 15
    found = files_of([root / "train", root / "train/messy/0.JPG"])
    assert len(found.images) == 15
    assert found.counts == {**LEFT_OUT, walk.TWICE: 3}
    prepare.main([str(root)])
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines()]
    assert ["train", "messy", "13"] in [row[:3] for row in rows]
    assert ["test", "tidy", "2"] in [row[:3] for row in rows]
    for reason, count in LEFT_OUT.items():
        assert f"left out      train: {count} {reason}\n" in shown


def test_a_link_takes_no_image_away_from_its_own_class(tmp_path):
    for name in ("a", "b"):
        for number in range(2):
            picture(tmp_path / "R/train" / name / f"{number}.png", (number, 9, 9))
            picture(tmp_path / "R/test" / name / f"{number}.png", (number, 99, 9))
    picture(tmp_path / "R/train/b/extra/2.png", "blue")
    (tmp_path / "R/train/a/more").symlink_to(tmp_path / "R/train/b/extra")
    (tmp_path / "R/train/a/up").symlink_to(tmp_path / "R/train")
    (tmp_path / "elsewhere").mkdir()
    picture(tmp_path / "elsewhere/3.png", "green")
    (tmp_path / "R/train/a/pool").symlink_to(tmp_path / "elsewhere")
    train = ImageFolder(str(tmp_path / "R")).load().train
    assert train.names == [
        "a/0.png",
        "a/1.png",
        "a/pool/3.png",
        "b/0.png",
        "b/1.png",
        "b/extra/2.png",
    ]
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_a_file_that_was_named_counts_whatever_its_ending(tmp_path):
    picture(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.backup")
    assert files_of([tmp_path / "photo.backup"]).images == [tmp_path / "photo.backup"]


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes")
def test_a_pipe_among_the_arguments_is_no_reason_to_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match=r"images: is no regular file"):
        files_of([tmp_path / "pipe.png"])


def test_a_folder_that_cannot_be_opened_is_said(tmp_path, monkeypatch):
    def refused(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UserError, match=r"cannot be opened .Permission denied."):
        walk.visible_folders(tmp_path)
    (found,) = Walker().below(tmp_path)
    assert found.counts == {walk.CLOSED: 1}


def test_every_suffix_that_pillow_reads_counts_and_stubs_do_not():
    known = walk.suffixes()
    assert {".jfif", ".avif", ".jp2", ".tga", ".jpg", ".tiff", ".webp", ".ppm"} <= known
    assert not known & {".pdf", ".h5", ".hdf", ".mpg", ".mpeg", ".eps", ".wmf", ".grib"}
