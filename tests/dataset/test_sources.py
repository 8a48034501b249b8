"""Every dataset of the paper from files in their real formats, and what is said of bad ones."""

import io
import json
import pickle
import resource
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from smm_lightning import train as entry
from smm_lightning.dataset import (
    Decoding,
    HubDataset,
    ImageDataModule,
    Listing,
    Source,
    Splits,
)
from smm_lightning.dataset.coop import read_split
from smm_lightning.dataset.hub import HubSplit
from smm_lightning.dataset.lmdb_split import LmdbSplit
from smm_lightning.dataset.records import load_record
from smm_lightning.dataset.splits import ArraySplit
from smm_lightning.errors import UserError
from smm_lightning.run import prepare
from smm_lightning.run.prepare import known_datasets
from tests.dataset import miniatures

COOP = [name for name in known_datasets() if "split" in miniatures.node(name, "data")]
SMALL = ("backbone=tiny", "backbone.classes=120", "trainer=cpu", "epochs=1", "dataset.batch_size=4")


@pytest.mark.parametrize("name", known_datasets())
def test_each_of_the_twelve_is_prepared_cached_and_trained(
    name, composed, tmp_path, monkeypatch, capsys
):
    root = tmp_path / "my data, 1=2 ü"
    miniatures.make(name, root, monkeypatch)
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    assert prepare.main([name, "--data", str(root), "--decode"]) == 0
    assert "differs" in capsys.readouterr().out
    limits = ("+trainer.limit_train_batches=1", "+trainer.limit_val_batches=1")
    cfg = composed(f"dataset={name}", f"paths.data='{root}'", *SMALL, *limits)
    result = entry.train(cfg)
    # Of two images of a class one is held out, of signs one track; CoOp's sets have a val.
    expected = {"cifar10": (10, 10, 10), "cifar100": (100, 100, 100), "svhn": (10, 10, 10)}
    expected["gtsrb"] = (6, 6, 6)
    train, test, val = expected.get(name, (12, 6, 3) if name in COOP else (9, 6, 3))
    counts = {"train": train, "test": test, "val": val}
    assert result["data/images"] == counts
    assert result["val/acc"] is not None
    after = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    assert after == before  # the data root may be read-only


@pytest.mark.parametrize("layout", miniatures.COOP_LAYOUTS)
@pytest.mark.parametrize("name", ["dtd", "oxfordpets"])
def test_coop_splits_over_the_images_of_others(name, layout, tmp_path):
    miniatures.make_coop(name, tmp_path, layout)
    splits = miniatures.source(name, tmp_path).load()
    assert (splits.val is None) == (layout == "ilm_lmdb")
    assert splits.class_names == ["kind 0", "kind 1", "kind 2"]
    assert splits.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for part, split in splits.parts().items():
        for number in range(len(split)):
            original = Image.fromarray(miniatures.pixels(len(part) * 100 + number))
            difference = np.abs(np.asarray(split.read(number), float) - np.asarray(original, float))
            assert difference.mean() < 60  # JPEG of noise; another image differs by about 85


def test_arrays_are_the_original_pixels(tmp_path, monkeypatch):
    for name in ("cifar10", "svhn"):
        miniatures.make(name, tmp_path, monkeypatch)
        splits = miniatures.source(name, tmp_path).load()
        for number in (0, 7):
            expected = miniatures.pixels(number, (32, 32))
            np.testing.assert_array_equal(np.asarray(splits.train.read(number)), expected)
            assert splits.train.labels[number] == number


def test_gtsrb_has_two_training_sets(tmp_path, capsys):
    miniatures.make_gtsrb("gtsrb", tmp_path, training="GTSRB/Training", images=2)
    assert len(miniatures.source("gtsrb", tmp_path).load().train) == 6
    miniatures.make_gtsrb("gtsrb", tmp_path)
    assert len(miniatures.source("gtsrb", tmp_path).load().train) == 12
    assert len(miniatures.source("gtsrb", tmp_path, training_set="torchvision").load().train) == 6
    assert prepare.main(["gtsrb", "--data", str(tmp_path), "--strict"]) == 1
    assert "gtsrb: train 12, in Table 6 39209" in capsys.readouterr().out


def test_gtsrb_is_held_out_by_tracks(tmp_path):
    """Frames of one sign are never in train and val; a track of one class is none of another."""
    miniatures.make_gtsrb("gtsrb", tmp_path, images=40)
    options = {"batch_size": 4, "augmentation": "none", "size": 8, "val_fraction": 0.25}
    source = miniatures.source("gtsrb", tmp_path)
    data = ImageDataModule(source, image_cache=tmp_path / "cache", **options)
    data.setup()
    tracks = {
        split: {
            (name.split("/")[0], name.split("/")[1].split("_")[0])
            for name in data.names_of(split, np.arange(data.image_counts[split]))
        }
        for split in ("train", "val")
    }
    assert not tracks["train"] & tracks["val"]
    assert len(tracks["val"]) == 3 * 5  # of 20 tracks in each of 3 classes
    assert data.image_counts == {"train": 90, "test": data.image_counts["test"], "val": 30}
    assert data.overlaps == []


def test_a_gtsrb_with_gaps_is_refused(tmp_path):
    miniatures.make_gtsrb("gtsrb", tmp_path)
    options = {
        "batch_size": 2,
        "augmentation": "none",
        "size": 16,
        "image_cache": tmp_path / "image_cache",
    }
    answers = tmp_path / "gtsrb/GT-final_test.csv"
    answers.write_text(answers.read_text().replace(";2\n", ";7\n"))
    with pytest.raises(UserError, match=r"gtsrb/test: has labels without a class .got .7"):
        ImageDataModule(miniatures.source("gtsrb", tmp_path), **options).setup()
    (tmp_path / "gtsrb/GTSRB/Final_Training/Images/00001").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"Images: class folders are left out"):
        miniatures.source("gtsrb", tmp_path).load()
    answers.write_text("no;list\n1;2\n")
    with pytest.raises(UserError, match=r"is no list of GTSRB's test images|left out"):
        miniatures.source("gtsrb", tmp_path).load()


def test_a_corrupted_download_is_named(tmp_path, monkeypatch):
    miniatures.make("cifar10", tmp_path, monkeypatch)
    file = tmp_path / "cifar10/cifar-10-batches-py/data_batch_3"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(UserError, match=r"another checksum than the original.*--download"):
        miniatures.source("cifar10", tmp_path).load()


def test_missing_files_are_counted(tmp_path):
    miniatures.make_coop("eurosat", tmp_path)
    (tmp_path / "eurosat/2750/kind_1/train_0.jpg").unlink()
    with pytest.raises(UserError) as error:
        miniatures.source("eurosat", tmp_path).listings()
    (line,) = error.value.problems
    assert line.startswith("eurosat/train: 1 of 12 files are missing, the first is ")


def test_a_file_that_is_replaced_changes_the_identity(tmp_path):
    miniatures.make_coop("eurosat", tmp_path)
    source = miniatures.source("eurosat", tmp_path)
    before = source.listings()
    assert before == source.listings()
    miniatures.write(tmp_path / "eurosat/2750/kind_1/train_0.jpg", miniatures.encoded(5))
    after = source.listings()
    assert before["train"] != after["train"]
    assert before["test"] == after["test"]


HOSTILE = {
    "truncated": (lambda rows: json.dumps(rows)[:-20], "is no JSON"),
    "empty": (lambda rows: "", "is no JSON"),
    "a list": (lambda rows: "[]", "has no parts"),
    "no test": (lambda rows: json.dumps({**rows, "test": []}), "part 'test' is empty"),
    "parent": (
        lambda rows: changed(rows, "../../etc/passwd"),
        "is no .path below the image folder",
    ),
    "absolute": (lambda rows: changed(rows, "/etc/passwd"), "is no .path below the image folder"),
    "inner": (lambda rows: changed(rows, "a/../../b"), "is no .path below the image folder"),
    "backslash": (lambda rows: changed(rows, "..\\b"), "is no .path below the image folder"),
    "a number": (lambda rows: changed(rows, 7), "is no .path below the image folder"),
    "twice": (lambda rows: changed(rows, "kind_0/test_0.jpg"), "1 images stand in it twice"),
    "gap": (lambda rows: changed(rows, "x.jpg", 9, "z"), r"class numbers are left out .got .3, 4"),
    "negative": (lambda rows: changed(rows, "x.jpg", -1), "is no .path below the image folder"),
    "two names": (lambda rows: changed(rows, "x.jpg", 0, "other"), "class 0 has two names"),
}


def changed(rows, path, label=0, name="kind 0"):
    return json.dumps({**rows, "train": [[path, label, name], *rows["train"]]})


@pytest.mark.parametrize("case", HOSTILE)
def test_a_bad_split_file_is_refused(case, tmp_path):
    spoil, message = HOSTILE[case]
    file = tmp_path / "split.json"
    file.write_text(spoil(miniatures.coop_rows()))
    with pytest.raises(UserError, match=message) as error:
        read_split(file)
    assert all(line.startswith(str(file)) for line in error.value.problems)


class Malice:
    def __reduce__(self):
        return print, ("this code ran",)


BOMB = b"\x80\x04Nr\xff\xff\xff\x7f."  # nine bytes that ask for a memo of gigabytes


def test_records_are_data_alone():
    for plain in ((b"abc", 3), [b"0", b"1"], 12345678901234567890, ("x", None, True), 2**80):
        for protocol in (3, 4, 5):
            assert load_record(pickle.dumps(plain, protocol)) == plain
    long = [b"%d" % number for number in range(3000)]
    assert load_record(pickle.dumps(long, 3)) == long
    for hostile in (pickle.dumps(Malice()), pickle.dumps({"a": 1}), pickle.dumps(np.int64(3))):
        with pytest.raises(ValueError, match=r"opcode"):
            load_record(hostile)
    for broken in (b"", b"no pickle", pickle.dumps((b"abc", 3))[:-3]):
        with pytest.raises(ValueError, match=r"pickle|opcode"):
            load_record(broken)


def test_a_small_pickle_cannot_take_much_memory():
    code = (
        "from smm_lightning.dataset.records import load_record\n"
        f"try: load_record({BOMB!r})\n"
        "except ValueError as error: print(error)"
    )
    limit = (4 << 30, 4 << 30)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )
    assert done.stdout.strip() == "pickle with a memo beyond its data", done.stderr


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"1": pickle.dumps(Malice())}, r"flowers/train\[1\] .*: holds a pickle with the opcode"),
        ({"1": BOMB}, r"a memo beyond its data"),
        ({"1": pickle.dumps((miniatures.encoded(0), 2))}, r"another label than the split file's 0"),
        ({"1": pickle.dumps(b"image")}, r"the record is no \(image, label\)"),
        ({"1": pickle.dumps((b"no image", 0))}, r"is no readable image"),
        ({"__len__": pickle.dumps(3)}, r"__len__ is not the 2 of __keys__ \(got 3\)"),
        ({"__keys__": pickle.dumps("keys")}, r"__keys__ is no list of keys"),
        ({"__keys__": pickle.dumps([b"0", b"9"])}, r"has no record '9'"),
    ],
)
def test_a_hostile_lmdb_is_refused(replaced, message, tmp_path, capsys):
    path = tmp_path / "train.lmdb"
    records = [(miniatures.encoded(number), 0) for number in range(2)]
    miniatures.make_lmdb(path, records, **replaced)
    with pytest.raises(UserError, match=message):
        LmdbSplit("flowers/train", path, np.zeros(2, int)).read(1)
    assert "this code ran" not in capsys.readouterr().out


def test_a_truncated_lmdb_does_not_kill_the_process(tmp_path):
    path = tmp_path / "train.lmdb"
    miniatures.make_lmdb(path, [(miniatures.encoded(n, size=(300, 300)), 0) for n in range(9)])
    content = path.read_bytes()
    for size in (len(content) // 2, 10_000, 100, 0):
        cut = tmp_path / f"{size}.lmdb"
        cut.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"is truncated|no readable LMDB|has no record"):
            LmdbSplit("flowers/train", cut, np.zeros(9, int))


def test_an_lmdb_and_its_split_file_must_agree(tmp_path):
    miniatures.make_lmdb(tmp_path / "train.lmdb", [(b"", 0)])
    with pytest.raises(UserError, match=r"holds 1 images, its split file 2"):
        LmdbSplit("flowers/train", tmp_path / "train.lmdb", np.zeros(2, int))


def test_an_lmdb_is_decoded_by_several_processes(tmp_path, monkeypatch):
    from smm_lightning.dataset import image_cache, image_cache_builder

    monkeypatch.setattr(image_cache_builder, "_WORTH_PROCESSES", 1)
    for module in (image_cache, image_cache_builder):
        monkeypatch.setattr(module, "CHUNK", 2)
    miniatures.make_coop("dtd", tmp_path, "ilm_lmdb")
    options = {"batch_size": 2, "augmentation": "none", "size": 16, "build_workers": 2}
    data = ImageDataModule(
        miniatures.source("dtd", tmp_path), image_cache=tmp_path / "image_cache", **options
    )
    data.setup()
    assert data.image_counts == {"train": 12, "test": 6}
    first = data.source.load().train.read(0).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data._caches["train"].images[0], np.asarray(first))


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """A dataset of the hub in its parquet form, made locally."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    folder = tmp_path / "hub"
    folder.mkdir()
    for split, count in (("train", 6), ("test", 4)):
        table = datasets.Dataset.from_dict(
            {
                "picture": [
                    {"bytes": miniatures.encoded(n, "PNG"), "path": None} for n in range(count)
                ],
                "kind": [n % 2 for n in range(count)],
                "word": ["ab"[n % 2] for n in range(count)],
                "noisy": [1 - n % 2 for n in range(count)],
                "absent": [None if n == 2 else "a" for n in range(count)],
                "several": [["a"] for _ in range(count)],
                "gaps": [
                    None if n == 1 else {"bytes": miniatures.encoded(n, "PNG"), "path": None}
                    for n in range(count)
                ],
            },
            features=datasets.Features(
                picture=datasets.Image(),
                kind=datasets.ClassLabel(names=["cat", "dog"]),
                word=datasets.Value("string"),
                noisy=datasets.ClassLabel(names=["cat", "dog"]),
                absent=datasets.Value("string"),
                several=datasets.Sequence(datasets.Value("string")),
                gaps=datasets.Image(),
            ),
        )
        table.to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize(("column", "names"), [("kind", ["cat", "dog"]), ("word", ["a", "b"])])
def test_a_dataset_of_the_hub(hub_folder, composed, column, names):
    source = HubDataset(str(hub_folder), image_column="picture", label_column=column)
    splits = source.load()
    assert splits.class_names == names
    assert splits.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    np.testing.assert_array_equal(np.asarray(splits.train.read(3)), miniatures.pixels(3))
    assert source.listings() == source.listings()
    cfg = composed(
        "dataset=hub",
        f"dataset.source.path={hub_folder}",
        "dataset.source.image_column=picture",
        f"dataset.source.label_column={column}",
        *SMALL,
    )
    assert entry.train(cfg)["data/images"] == {"train": 4, "test": 4, "val": 2}


def test_another_label_column_of_the_hub_is_another_dataset(hub_folder):
    stamps = set()
    for column in ("kind", "noisy"):
        source = HubDataset(str(hub_folder), image_column="picture", label_column=column)
        stamps.add(source.listings()["train"].stamp)
    assert len(stamps) == 2


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label_column": "absent"}, r"hub/train\[2\]: has no absent"),
        ({"label_column": "several"}, r"hub/train\[0\]: its several is no single class"),
        ({"image_column": "kind"}, r"hub/train: kind: holds no images"),
    ],
)
def test_a_column_of_the_hub_that_cannot_be_used_is_named(hub_folder, columns, message):
    with pytest.raises(UserError, match=message):
        HubDataset(
            str(hub_folder), **{"image_column": "picture", "label_column": "kind"} | columns
        ).load()


def test_an_image_that_the_hub_lacks_is_named(hub_folder):
    splits = HubDataset(str(hub_folder), image_column="gaps", label_column="kind").load()
    with pytest.raises(UserError, match=r"hub/train\[1\]: has no image"):
        splits.train.read(1)


def test_photographs_of_the_hub_are_seen_upright(tmp_path):
    import datasets

    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.new("RGB", (6, 2), "red")
    buffer = io.BytesIO()
    wide.save(buffer, "PNG", exif=exif)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["a"]))
    row = {"image": [{"bytes": buffer.getvalue(), "path": None}], "label": [0]}
    table = datasets.Dataset.from_dict(row, features=features)
    sizes = {}
    for upright in (True, False):
        decoding = Decoding(exif=upright)
        split = HubSplit("hub/train", table, "image", "label", ["a"], decoding)
        sizes[upright] = split.read(0).size, split.stamp
    assert (sizes[True][0], sizes[False][0]) == ((2, 6), (6, 2))
    assert sizes[True][1] != sizes[False][1]


def test_a_hub_that_is_out_of_reach_costs_no_result(hub_folder, composed, capsys):
    columns = ("dataset.source.image_column=picture", "dataset.source.label_column=kind")
    cfg = composed("dataset=hub", f"dataset.source.path={hub_folder}", *columns, *SMALL)
    result = entry.train(cfg)
    hub_folder.rename(hub_folder.with_name("gone"))
    assert entry.train(cfg)["run_key"] == result["run_key"]
    assert "its images are not here" in capsys.readouterr().out


def test_arrays_are_not_read_again_where_images_stand_in_two_splits(tmp_path):
    loads = []

    class Twins(Source):
        name = "twins"
        image_size = 4

        def listings(self, load=None):
            return {name: Listing(name) for name in ("train", "test")}

        def load(self):
            loads.append(1)
            images = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
            splits = [ArraySplit(f"twins/{n}", images, [0, 1]) for n in ("train", "test")]
            return Splits(*splits, None, ["a", "b"])

    for _ in range(3):
        data = ImageDataModule(
            Twins(), batch_size=1, augmentation="none", size=8, image_cache=tmp_path / "image_cache"
        )
        data.setup()
        (overlap,) = data.overlaps
        assert (overlap.images, overlap.names) == (2, (("0", "0"), ("1", "1")))
    assert loads == [1]


def test_what_the_hub_lacks_is_said(hub_folder):
    with pytest.raises(UserError, match=r"image_column: no such column .*'image'.*Known: absent"):
        HubDataset(str(hub_folder)).load()
    with pytest.raises(UserError, match=r"source.val: no such split .*'valid'"):
        HubDataset(str(hub_folder), val="valid").load()
    with pytest.raises(UserError, match=r"source.path: cannot be loaded"):
        HubDataset(str(hub_folder / "nothing")).load()
    with pytest.raises(UserError, match=r"source.path: is not set"):
        HubDataset(None)


EXTRAS = {
    "lmdb": ("lmdb", lambda folder: LmdbSplit("dtd/train", folder / "x.lmdb", np.zeros(1, int))),
    "datasets": ("hub", lambda folder: HubDataset(str(folder)).load()),
}


@pytest.mark.parametrize("package", EXTRAS)
def test_a_missing_extra_is_named(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    extra, use = EXTRAS[package]
    with pytest.raises(UserError, match=rf"needs the package {package}.*smm-lightning.{extra}."):
        use(tmp_path)
