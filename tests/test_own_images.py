"""A user's own folder of images: results that are tied to them, splits, photographs."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smm_lightning import ReprogrammedClassifier
from smm_lightning import train as entry
from smm_lightning.dataset import Decoding, ImageDataModule, ImageFolder
from smm_lightning.errors import UserError
from smm_lightning.inference.model import load_model
from smm_lightning.inference.predict import predictions
from tests.faults import cut_after
from tests.programs import run_program

CLASSES = ("ant", "bee", "cat")


def write_class(folder, colour, count, size=(20, 16), start=0):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(start, start + count):
        noise = np.random.default_rng([*colour, number]).integers(0, 60, (*size[::-1], 3))
        pixels = np.clip(noise + np.array(colour), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def make(root):
    """Three classes of small PNGs: eight for training and four for testing each."""
    for split, count, start in (("train", 8, 0), ("test", 4, 100)):
        for place, name in enumerate(CLASSES):
            write_class(root / split / name, np.eye(3, dtype=int)[place] * 180, count, start=start)
    return root


@pytest.fixture
def root(tmp_path):
    return make(tmp_path / "R")


SMALL = (
    *("dataset=imagefolder", "backbone=tiny", "trainer=cpu", "epochs=2", "dataset.batch_size=8"),
    *("protocol=published", "dataset.use_val=true"),
)


@pytest.fixture
def configured(composed):
    def with_root(root, *options):
        return composed(*SMALL, f"dataset.source.root={root}", *options)

    return with_root


def untouched(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_result_says_which_images_it_is_of(root, configured):
    result = entry.train(configured(root))
    assert result["class_names"] == list(CLASSES)
    assert {name: facts["images"] for name, facts in result["images"].items()} == {
        "train": 24,
        "test": 12,
    }
    assert result["images"]["train"]["digest"] != result["images"]["test"]["digest"]
    assert result["in_two_splits"] == []


def test_a_finished_run_is_not_taken_for_one_of_other_images(root, configured):
    cfg = configured(root)
    entry.train(cfg)
    for name in CLASSES:
        write_class(root / "test" / name, (90, 90, 90), 4, start=100)
    with pytest.raises(UserError) as error:
        entry.train(cfg)
    (line,) = error.value.problems
    assert "was finished with other images: other images in test (12 then, 12 now)" in line
    assert line.endswith("force=true runs it anew; another paths.root keeps both.")
    anew = entry.train(configured(root, "force=true"))
    assert entry.train(cfg)["images"] == anew["images"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "train/ant").rename(root / "train/wasp"), None),
        (
            lambda root: [
                (root / split / "ant").rename(root / split / "wasp") for split in ("train", "test")
            ],
            r"other classes .without ant; new wasp., other images in train .24 then, 24 now., "
            r"other images in test",
        ),
        (lambda root: (root / "train/ant/3.png").unlink(), r"in train .24 then, 23 now."),
        (
            lambda root: shutil.copytree(root / "test", root / "val"),
            r": val is new",
        ),
    ],
)
def test_what_changed_is_said(root, configured, change, message):
    cfg = configured(root)
    entry.train(cfg)
    change(root)
    with pytest.raises(UserError, match=message or "classes that the training folder lacks"):
        entry.train(cfg)


def test_equal_images_elsewhere_with_other_times_are_the_same_run(
    root, configured, tmp_path, capsys
):
    cfg = configured(root)
    result = entry.train(cfg)
    before = untouched(Path(cfg.paths.run))
    for path in sorted(root.rglob("*.png")):
        path.touch()
    assert entry.train(cfg)["images"] == result["images"]
    assert "finished before" in capsys.readouterr().out
    assert {p: t for p, t in untouched(Path(cfg.paths.run)).items() if p in before} == before


def test_a_result_without_its_images_stands_with_a_line(root, configured, capsys):
    cfg = configured(root)
    result = entry.train(cfg)
    shutil.rmtree(root)
    assert entry.train(cfg)["run_key"] == result["run_key"]
    shown = capsys.readouterr().out
    assert "its images are not here, so they were not compared" in shown
    assert "finished before" in shown


def test_a_result_of_an_older_version_is_not_trusted(root, configured):
    cfg = configured(root)
    result = entry.train(cfg)
    del result["images"]
    (Path(cfg.paths.run) / "result.json").write_text(json.dumps(result))
    with pytest.raises(UserError, match=r"did not note its images. force=true runs it anew"):
        entry.train(cfg)


def test_two_projects_do_not_share_a_result(tmp_path, composed, monkeypatch):
    """The same command in two folders: a relative root of data, an absolute one of runs."""
    for place, name in enumerate(("first", "second")):
        project = tmp_path / name
        make(project / "images")
        if place:
            write_class(project / "images/test/ant", (0, 200, 0), 4, start=100)
        monkeypatch.chdir(project)
        cfg = composed(*SMALL, "dataset.source.root=images")
        if place:
            with pytest.raises(UserError, match=r"other images in test"):
                entry.train(cfg)
        else:
            entry.train(cfg)


def test_an_interrupted_run_does_not_go_on_with_other_images(root, configured, monkeypatch):
    cfg = configured(root)
    cut_after(cfg, 0, monkeypatch)
    (root / "train/ant").rename(root / "train/spare")
    (root / "train/bee").rename(root / "train/ant")
    (root / "train/spare").rename(root / "train/bee")
    with pytest.raises(UserError) as error:
        entry.train(cfg)
    assert error.value.problems == [
        "ckpt_path: the checkpoint was made with other images: other images in train (24 then, 24 "
        "now). force=true, without ckpt_path, begins anew."
    ]
    assert len(entry.train(configured(root, "force=true"))["history"]) == 2


def test_a_sweep_names_the_run_whose_images_changed(root, tmp_path):
    command = ("-m", *SMALL, f"dataset.source.root={root}", "seed=0", "epochs=1")
    assert run_program(*command, cwd=tmp_path).returncode == 0
    again = run_program(*command, cwd=tmp_path)
    assert again.returncode == 0
    assert again.stdout.count("finished before") == 1
    write_class(root / "test/ant", (1, 2, 3), 1, start=100)
    done = run_program(*command, cwd=tmp_path)
    assert done.returncode == 1
    assert "was finished with other images: other images in test" in done.stdout + done.stderr


def data_of(root, tmp_path, **options):
    source = {k: options.pop(k) for k in ("val", "exif", "background", "groups") if k in options}
    settings = {
        "batch_size": 4,
        "augmentation": "none",
        "size": 16,
        "image_cache": tmp_path / "image_cache",
    }
    data = ImageDataModule(ImageFolder(str(root), **source), **{**settings, **options})
    data.setup()
    return data


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev"])
def test_other_names_of_the_validation_folder_are_known(root, tmp_path, name, configured, capsys):
    shutil.copytree(root / "test", root / name)
    data = data_of(root, tmp_path)
    assert data.image_counts["val"] == 12
    assert data.images["val"]["from"] == name
    entry.train(configured(root, "epochs=1"))
    said = "val 12" if name == "val" else f"val 12 (from {name})"
    assert f"images        train 24, test 12, {said}\n" in capsys.readouterr().out


def test_a_split_that_was_asked_for_must_be_there(root, tmp_path):
    (root / "holdout").mkdir()
    with pytest.raises(
        UserError, match=r"dataset.source.val: .*no such folder .got 'holdot'.. Did"
    ):
        data_of(root, tmp_path, val="holdot")
    assert "val" not in data_of(root, tmp_path, val=None).image_counts


def test_images_in_two_splits_are_counted_and_named(root, tmp_path, configured, capsys):
    for number, name in ((100, "9.png"), (102, "10.png")):
        with Image.open(root / f"test/bee/{number}.png") as image:
            image.save(root / "train/bee" / name, compress_level=1)  # other bytes, equal pixels
    result = entry.train(configured(root, "epochs=1"))
    (overlap,) = result["in_two_splits"]
    assert (overlap["split"], overlap["other"], overlap["images"]) == ("test", "train", 2)
    shown = capsys.readouterr().out
    assert "warning       2 images of test stand in train, too: bee/100.png = bee/9.png" in shown
    assert "left out" not in shown


@pytest.mark.parametrize(("train", "test"), [("Café", "Cafe\u0301"), ("Dog", "dog")])
def test_classes_that_people_take_for_one_are_named_as_such(root, tmp_path, train, test):
    write_class(root / "train" / train, (9, 9, 9), 4)
    write_class(root / "test" / test, (9, 9, 9), 4)
    with pytest.raises(UserError) as error:
        data_of(root, tmp_path)
    (line,) = error.value.problems
    assert (
        f"'{test}' differs from its '{train}' only in upper and lower case or in the form" in line
    )


def test_a_validation_folder_is_not_also_the_test_folder(root, tmp_path):
    (root / "test").rename(root / "val")
    (root / "valid").mkdir()
    source = ImageFolder(str(root), test="val")
    assert source.load().test.folder == "val"
    with pytest.raises(UserError, match=r"imagefolder/val: has no images"):
        ImageDataModule(
            source, batch_size=4, augmentation="none", size=8, image_cache=tmp_path / "b"
        ).setup()
    (root / "valid").rmdir()
    assert source.load().val is None


@pytest.mark.parametrize(
    ("empty", "options", "message"),
    [
        ("test/*/*.png", {}, r"imagefolder/test: has no images"),
        ("train/*/*.png", {}, r"imagefolder/train: has no images"),
    ],
)
def test_a_split_without_images_is_refused(root, tmp_path, empty, options, message):
    for path in root.glob(empty):
        path.unlink()
    with pytest.raises(UserError, match=message):
        data_of(root, tmp_path, **options)


def test_a_class_that_comes_and_goes_empty_is_seen(root, tmp_path):
    (root / "train/zebra").mkdir()
    with pytest.raises(UserError, match=r"has classes without images .got 'zebra'."):
        data_of(root, tmp_path)
    (root / "train/zebra").rmdir()
    assert data_of(root, tmp_path).class_names == list(CLASSES)
    (root / "train/zebra").mkdir()
    with pytest.raises(UserError, match=r"has classes without images .got 'zebra'."):
        data_of(root, tmp_path)


def test_files_of_equal_names_sizes_and_times_are_told_apart(root, tmp_path):
    for split in ("train", "test"):
        for path in (root / split).rglob("*.png"):
            with Image.open(path) as image:
                image.save(path.with_suffix(".bmp"))
            path.unlink()
            os.utime(path.with_suffix(".bmp"), (1, 1))
    before = data_of(root, tmp_path).images["test"]["digest"]
    (root / "test/ant").rename(root / "test/spare")
    (root / "test/bee").rename(root / "test/ant")
    (root / "test/spare").rename(root / "test/bee")
    assert data_of(root, tmp_path).images["test"]["digest"] != before


def test_a_run_that_begins_anew_and_is_cut_is_not_finished(root, configured, monkeypatch):
    cfg = configured(root)
    entry.train(cfg)
    cut_after(configured(root, "force=true"), 0, monkeypatch)
    assert not (Path(cfg.paths.run) / "result.json").exists()
    assert len(entry.train(cfg)["history"]) == 2


def test_force_on_images_that_cannot_be_read_costs_nothing(root, configured):
    cfg = configured(root)
    result = entry.train(cfg)
    (root / "train/ant/0.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"is no readable image"):
        entry.train(configured(root, "force=true"))
    assert json.loads((Path(cfg.paths.run) / "result.json").read_text()) == result


def test_folders_may_be_called_by_a_number(root, tmp_path):
    (root / "train").rename(root / "2019")
    (root / "test").rename(root / "2020")
    assert len(ImageFolder(str(root), train=2019, test=2020).load().test) == 12
    with pytest.raises(UserError, match=r"dataset.source.root: no such folder .got '2024'."):
        ImageFolder(2024).load()


def test_a_class_that_a_split_lacks_is_no_folder_that_cannot_be_opened(root, tmp_path):
    shutil.copytree(root / "test", root / "val")
    shutil.rmtree(root / "val/bee")
    data = data_of(root, tmp_path)
    assert data.image_counts["val"] == 8
    assert data.images["val"]["left out"] == {}
    assert data.images["val"]["without"] == ["bee"]


def test_folders_of_classes_belong_below_the_split(root, configured):
    for folder in (root / "train", root / "test"):
        folder.rename(root / "all")
        folder.mkdir()
        (root / "all").rename(folder / "all")
    with pytest.raises(UserError, match=r"r/train: has one class only .got 'all'.. Where classes"):
        entry.train(configured(root))
    for image in (root / "train/all").rglob("*.png"):
        image.rename(root / "train" / f"{image.parent.name} {image.name}")
    shutil.rmtree(root / "train/all")
    with pytest.raises(UserError, match=r"R/train: has no folder of a class. Images belong in "):
        entry.train(configured(root))


def test_finished_runs_are_reported_where_they_could_not_run(root, configured):
    result = entry.train(configured(root, "epochs=1"))
    assert entry.train(configured(root, "epochs=1", "trainer.accelerator=gpu")) == result
    first = Path(configured(root, "epochs=1").paths.run) / "last.ckpt"
    moved = first.rename(first.with_name("start.ckpt"))
    again = configured(root, "epochs=2", f"ckpt_path='{moved}'")
    continued = entry.train(again)
    moved.unlink()
    assert entry.train(again) == continued


def test_objects_are_counted_within_their_class(tmp_path):
    """Numbers that begin anew in every class do not make two classes one object."""
    for split, count in (("train", 10), ("test", 2)):
        for place, name in enumerate(("cat", "dog")):
            folder = tmp_path / "R" / split / name
            write_class(folder, np.eye(3, dtype=int)[place] * 180, count)
            for path in sorted(folder.iterdir()):
                path.rename(folder / f"{int(path.stem) // 2}_{path.stem}.png")
    data = data_of(tmp_path / "R", tmp_path, groups=r"^(\d+)_", val_fraction=0.4)
    assert np.bincount(data.labels("val")).tolist() == [4, 4]
    either = data_of(tmp_path / "R", tmp_path, groups=r"^y(\d+)_|^(\d+)_", val_fraction=0.4)
    assert either._caches["val"].index.tolist() == data._caches["val"].index.tolist()
    optional = data_of(tmp_path / "R", tmp_path, groups=r"^(x\d)?", val_fraction=0.4)
    assert np.bincount(optional.labels("val")).tolist() == [4, 4]


def test_images_of_one_object_are_never_divided(root, tmp_path):
    for name in CLASSES:
        for path in sorted((root / "train" / name).iterdir()):
            number = int(path.stem)
            path.rename(path.with_name(f"{name}-{number // 2}_{number}.png"))
    data = data_of(root, tmp_path, groups=r"^([\w-]+)_", val_fraction=0.25)
    names = data.source.load().train
    parts = [
        {names.name_of(i).split("_")[0] for i in data._caches[s].index} for s in ("train", "val")
    ]
    assert parts[0] & parts[1] == set()
    assert data.image_counts == {"train": 18, "test": 12, "val": 6}
    assert data.overlaps == []
    shutil.copytree(root / "test", root / "val")
    (root / "val/ant/100.png").rename(root / "val/ant/ant-0_7.png")
    (overlap,) = [o for o in data_of(root, tmp_path, groups=r"^([\w-]+)_").overlaps if o.objects]
    assert (overlap.split, overlap.other, overlap.objects) == ("val", "train", 1)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "is no regular expression"),
        ("^x(\\d)", "fits no file name"),
    ],
)
def test_patterns_that_cannot_be_used(root, tmp_path, pattern, message):
    with pytest.raises(UserError, match=rf"dataset.source.groups: {message}"):
        data_of(root, tmp_path, groups=pattern)


ORIENTATIONS = range(1, 9)


def photograph(path, orientation):
    """A picture whose upper left quarter is white when it is upright."""
    upright = Image.new("RGB", (16, 24), "black")
    upright.paste("white", (0, 0, 8, 12))
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # back to what the sensor saw
    stored = upright.transpose(Image.Transpose(turns[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    stored.save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))
    return upright


@pytest.mark.parametrize("kind", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_photographs_are_seen_upright(tmp_path, orientation, kind):
    for split in ("train", "test"):
        upright = photograph(tmp_path / "R" / split / "a" / f"0.{kind}", orientation)
    expected = np.asarray(upright.resize((16, 16), Image.Resampling.BILINEAR))
    data = data_of(tmp_path / "R", tmp_path, batch_size=1)
    np.testing.assert_array_equal(data._caches["train"].images[0], expected)
    if kind == "tif":  # Pillow itself turns these
        return
    as_stored = data_of(tmp_path / "R", tmp_path, batch_size=1, exif=False)
    equal = np.array_equal(as_stored._caches["train"].images[0], expected)
    assert equal == (orientation == 1)


def test_a_broken_note_of_the_camera_costs_no_image(tmp_path):
    for split in ("train", "test"):
        photograph(tmp_path / "R" / split / "a" / "0.jpg", 6)
    path = tmp_path / "R/train/a/0.jpg"
    content = path.read_bytes()
    place = content.index(b"Exif\0\0") + 6
    path.write_bytes(content[:place] + b"\xff" * 8 + content[place + 8 :])
    assert data_of(tmp_path / "R", tmp_path, batch_size=1).image_counts["train"] == 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(
    ("background", "expected"),
    [("white", (255, 255, 255)), ("#102030", (16, 32, 48)), (None, (0, 0, 0))],
)
def test_transparency_lies_on_the_stated_background(tmp_path, mode, background, expected):
    clear = Image.new("LA" if mode == "LA" else "RGBA", (6, 6))
    path = tmp_path / "x.png"
    if mode == "P":
        clear = Image.new("P", (6, 6))
        clear.putpalette([0, 0, 0] * 256)
        clear.save(path, transparency=0)
    else:
        clear.save(path)
    with Image.open(path) as image:
        assert image.mode == mode
        shown = Decoding(background=background).rgb(image)
    assert shown.mode == "RGB"
    assert shown.getpixel((3, 3)) == expected


def test_a_background_that_is_no_colour(root, configured):
    with pytest.raises(UserError, match=r"dataset.source.background: is no colour .got 'whte'."):
        entry.train(configured(root, "dataset.source.background=whte"))


@pytest.mark.parametrize("exif", ["true", "false"])
def test_predictions_see_photographs_as_training_did(tmp_path, configured, exif):
    from smm_lightning.classifier.prompt_file import read_prompt, write_prompt

    for split in ("train", "test"):
        for name in ("a", "b"):
            for number in range(4):
                photograph(tmp_path / "R" / split / name / f"{number}.png", 6)
    cfg = configured(tmp_path / "R", f"dataset.source.exif={exif}", "dataset.batch_size=4")
    entry.train(cfg)
    run = Path(cfg.paths.run)
    prompt = read_prompt(run)
    write_prompt(prompt, tmp_path / "p.safetensors")
    plain = ReprogrammedClassifier.from_prompt(prompt)
    plain.export(tmp_path / "p.pt2")
    decoding = Decoding(exif == "true", "white")
    photo = tmp_path / "R/test/a/0.png"
    with Image.open(photo) as image:
        pixels = np.array(decoding.rgb(image).resize((32, 32), Image.Resampling.BILINEAR))
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    expected = plain.probabilities(images)[0].max().item()
    for file in (run, tmp_path / "p.safetensors", tmp_path / "p.pt2"):
        model = load_model(file, torch.device("cpu"))
        assert model.decoding == decoding
        (row,) = predictions(model, [photo])
        assert row["classes"][0]["confidence"] == pytest.approx(expected, abs=1e-5)
