"""The command that says what is there and what is missing."""

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from smm_lightning.run import prepare
from tests.dataset import miniatures
from tests.test_own_images import make


def test_everything_is_missing_at_first(tmp_path, capsys):
    assert prepare.main(["--data", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    for name, file in prepare.known_datasets().items():
        source = prepare.node_of(file, tmp_path)["source"]
        lines = [line for line in shown.splitlines() if line.startswith(f"{name}: ")]
        assert lines, name
        assert f"{name} " in shown
        if "split" in source:
            assert any(source["split_url"] in line for line in lines)
            assert any(str(tmp_path / source["folders"][0]) in line for line in lines)
        if "split" not in source or "torchvision" in source:
            assert any("--download" in line for line in lines)
    assert "data_batch_1" in shown
    assert "GTSRB_Final_Training_Images.zip" in shown


def test_numbers_that_differ_are_reported_with_both(tmp_path, capsys):
    miniatures.make_coop("dtd", tmp_path)
    assert prepare.main(["dtd", "--data", str(tmp_path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1].split()[:6] == ["dtd", "differs", "12", "3", "6", "3"]
    assert shown[2:] == [
        "dtd: train 12, in Table 6 2820",
        "dtd: test 6, in Table 6 1692",
        "dtd: classes 3, in Table 6 47",
    ]
    assert prepare.main(["dtd", "--data", str(tmp_path), "--strict"]) == 1


def test_every_broken_image_is_listed(tmp_path, capsys):
    miniatures.make_coop("dtd", tmp_path)
    images = tmp_path / "dtd/images"
    (images / "kind_0/train_1.jpg").write_bytes(b"")
    whole = (images / "kind_2/test_0.jpg").read_bytes()
    (images / "kind_2/test_0.jpg").write_bytes(whole[: len(whole) // 2])
    assert prepare.main(["dtd", "--data", str(tmp_path)]) == 0
    assert prepare.main(["dtd", "--data", str(tmp_path), "--decode"]) == 1
    shown = capsys.readouterr().out
    assert f"dtd/train[1] {images}/kind_0/train_1.jpg: is no readable image" in shown
    assert f"dtd/test[4] {images}/kind_2/test_0.jpg: is no readable image" in shown
    assert shown.count("is no readable image") == 2
    assert "broken" in shown


def test_what_cannot_be_fetched_is_a_line(tmp_path, capsys):
    own = tmp_path / "own.yaml"
    node = OmegaConf.load(prepare.known_datasets()["dtd"])
    node.source = {"_target_": "smm_lightning.dataset.ImageFolder", "root": str(tmp_path)}
    OmegaConf.save(node, own)
    assert prepare.main([str(own), "--download"]) == 1
    assert "imagefolder: cannot be fetched from anywhere" in capsys.readouterr().out
    assert prepare.main(["svhn", "--download", "--data", str(own / "x")]) == 1
    assert "svhn: the download failed" in capsys.readouterr().out
    own.write_text("- digits")
    assert prepare.main([str(own)]) == 2
    assert "own.yaml: must hold the fields of a dataset" in capsys.readouterr().err


def test_folders_one_too_deep_are_said(tmp_path, capsys):
    made = make(tmp_path / "made")
    for split in ("train", "test"):
        (tmp_path / "deep" / split).mkdir(parents=True)
        (made / split).rename(tmp_path / "deep" / split / "all")
    assert prepare.main([str(tmp_path / "deep")]) == 1
    assert (
        "wrong         train has one class only, all. Where classes are" in capsys.readouterr().out
    )


def test_an_unknown_name(capsys):
    assert prepare.main(["cifar11"]) == 2
    assert "Did you mean 'cifar10'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cifar10", "svhn", "gtsrb", "flowers102", "food101"])
def test_downloads_are_left_to_torchvision(name, tmp_path, monkeypatch, capsys):
    import torchvision.datasets.utils
    from torchvision import datasets

    kind = getattr(
        datasets, {"food101": "Food101", "flowers102": "Flowers102"}.get(name, name.upper())
    )
    asked = []

    def refuse(*arguments, **options):
        asked.append(options.get("download", True))
        raise OSError("no network")

    monkeypatch.setattr(kind, "__init__", refuse)
    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", refuse)
    assert prepare.main([name, "--data", str(tmp_path / "new"), "--download"]) == 1
    assert asked == [True]
    assert f"{name}: the download failed (no network)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["sun397", "stanfordcars", "ucf101"])
def test_dead_downloads_are_said(name, tmp_path, capsys):
    assert prepare.main([name, "--data", str(tmp_path), "--download"]) == 1
    shown = capsys.readouterr().out
    assert f"{name}: no download. Fetch them from" in shown


def test_a_folder_of_ones_own(tmp_path, capsys):
    root = make(tmp_path / "R")
    assert prepare.main([str(root)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split() for line in shown[:6]] == [
        [split, name, count]
        for split, count in (("train", "8"), ("test", "4"))
        for name in ("ant", "bee", "cat")
    ]
    assert shown[6:] == [
        "sizes         20 x 16 (36)",
        "pixel formats RGB (36)",
        "A run can use it.",
    ]


def test_what_is_wrong_with_a_folder_of_ones_own(tmp_path, capsys):
    root = make(tmp_path / "R")
    ant = root / "train/ant"
    (ant / "0.png").write_bytes(b"no image")
    Image.new("I;16", (9, 9)).save(ant / "1.png")
    Image.new("L", (9, 9), 7).save(ant / "2.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 9), "blue").save(ant / "3.jpg", exif=exif)
    Image.new("RGBA", (9, 9), "green").save(ant / "4.png")
    for path in ("train/bee/copy.png", "train/cat/copy.png", "test/bee/copy.png"):
        (root / path).write_bytes((root / "train/bee/7.png").read_bytes())
    (root / "test/cat/copy.png").write_bytes((root / "train/cat/7.png").read_bytes())
    (ant / "copy.png").write_bytes((ant / "5.png").read_bytes())
    (ant / "paper.pdf").write_bytes(b"%PDF")
    assert prepare.main([str(root)]) == 1
    shown = capsys.readouterr().out
    assert f"wrong         imagefolder/train[0] {ant}/0.png: is no readable image" in shown
    assert "1.png: has more than 8 bits a channel (got 'I;16')" in shown
    kinds = "1 grey, 1 with more than 8 bits, 1 turned by the camera's note, 1 with transparency"
    assert f"of these      {kinds}" in shown
    assert "left out      train: 1 no images (.pdf)" in shown
    one_split = "note          1 x equal images in one split: train/ant/5.png = train/ant/copy.png"
    assert one_split in shown
    assert "wrong         1 x equal images of different classes: train/bee/7.png = " in shown
    two = "wrong         1 x equal images in two splits: train/cat/7.png = test/cat/copy.png"
    assert two in shown
    assert shown.splitlines()[-1] == "A run would stop, or be misled."


def test_a_folder_beside_names_and_a_wrong_name(tmp_path, capsys):
    root = make(tmp_path / "R")
    assert prepare.main([str(root), "cifar11"]) == 2
    assert "Did you mean 'cifar10'?" in capsys.readouterr().err
    assert prepare.main([str(root), "dtd", "--data", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "A run can use it." in shown
    assert "dtd" in shown


def test_objects_in_two_splits_are_wrong(tmp_path, capsys):
    root = make(tmp_path / "R")
    for path in list(root.rglob("bee/*.png")):
        path.rename(path.with_name(f"{int(path.stem) % 3}_{path.name}"))
    assert prepare.main([str(root), "--groups", r"^(\d)_"]) == 1
    line = "wrong         3 objects with images in train and test: bee/0, bee/1, bee/2"
    assert line in capsys.readouterr().out


def test_a_folder_without_splits(tmp_path, capsys):
    (tmp_path / "cats").mkdir()
    assert prepare.main([str(tmp_path)]) == 1
    assert "wrong         dataset.source.train: " in capsys.readouterr().out


def write_video(path, count):
    """Frame n is grey level 10 n."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(count):
            pixels = np.full((48, 64, 3), 10 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def test_middle_frames_come_out_of_videos(tmp_path, capsys):
    data, videos = tmp_path / "data", tmp_path / "UCF-101"
    miniatures.make_coop("ucf101", data)
    images = data / "ucf101/UCF-101-midframes"
    kept = (images / "kind_0/train_0.jpg").read_bytes()
    import json

    rows = [[f"Some_Kind/v_{n}.jpg", 0, "Some Kind"] for n in range(3)]
    old = ["kind_0/train_0.jpg", 0, "Some Kind"]
    split = {"train": [*rows, old], "test": [["Some_Kind/v_missing.jpg", 0, "Some Kind"]]}
    (data / "ucf101/split_zhou_UCF101.json").write_text(json.dumps(split))
    write_video(videos / "SomeKind/v_0.avi", 9)
    write_video(videos / "SomeKind/v_1.avi", 20)
    (videos / "SomeKind/v_2.avi").write_bytes(b"no video")
    command = ["ucf101", "--data", str(data), "--videos", str(videos)]
    assert prepare.main(command) == 1
    shown = capsys.readouterr().out
    assert "has no video (got 'v_missing')" in shown
    assert "v_2.avi: is no readable video" in shown
    for number, expected in ((0, 40), (1, 100)):
        frame = np.asarray(Image.open(images / f"Some_Kind/v_{number}.jpg"), dtype=float)
        assert frame.shape == (48, 64, 3)
        assert abs(frame.mean() - expected) < 4
    assert (images / "kind_0/train_0.jpg").read_bytes() == kept
