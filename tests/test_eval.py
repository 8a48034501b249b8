"""``smm eval``: the run's own numbers, on any dataset whose classes fit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from smm_lightning.errors import UserError
from smm_lightning.inference.classes import matched, pairs_of
from smm_lightning.inference.evaluate import evaluate, rendered
from smm_lightning.inference.model import Model
from smm_lightning.train import train
from tests.hostile import answer_of
from tests.test_habits import SMALL

COLOURS = {"red apple": (220, 30, 30), "green": (30, 200, 30), "blue_sky": (40, 60, 230)}


def folder_of_images(place, names, count, seed):
    """``count`` noisy images of each colour, in folders that are called otherwise."""
    random = np.random.default_rng(seed)
    for name, colour in zip(names, COLOURS.values(), strict=True):
        for split in ("train", "test"):
            folder = place / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = random.integers(-120, 120, (12, 12, 3))
                pixels = np.clip(noise + np.array(colour), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return place


@pytest.fixture(scope="module")
def of_colours(tmp_path_factory):
    return folder_of_images(tmp_path_factory.mktemp("colours"), COLOURS, 8, seed=0)


def words_of(place):
    return ("dataset=imagefolder", f"dataset.source.root={place}")


@pytest.fixture
def run(composed, of_colours):
    words = ("backbone=tiny", "trainer=cpu", "method=full", "dataset.batch_size=8", "epochs=2")
    cfg = composed(*words_of(of_colours), *words, "optimizer.groups.pattern.lr=0.1")
    return cfg.paths.run, train(cfg)


def measured(tmp_path, model, *words):
    """What the command writes as JSON."""
    assert answer_of("eval", str(model), *words, "--json", f"{tmp_path}/e.json") == 0
    return json.loads((tmp_path / "e.json").read_text())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "words",
    [
        ("method=smm",),
        ("method=smm", "recipe=paper", "mapping=blm", "epochs=6"),  # masks that are far from 1
        ("method=pad", "dataset.native_size=16"),
    ],
)
def test_a_run_is_measured_as_by_itself(composed, tmp_path, precision, words):
    cfg = composed(*SMALL, f"trainer.precision={precision}", "epochs=2", *words)
    result = train(cfg)
    found = measured(tmp_path, cfg.paths.run)
    assert found["precision"] == precision
    assert found["accuracy"] == pytest.approx(result["test/acc_last"], abs=1e-5)
    assert found["loss"] == pytest.approx(result["test/loss_last"], abs=1e-5)
    assert found["images"] == 40


def test_every_file_of_a_run_gives_the_same_numbers(run, of_colours, tmp_path):
    folder, result = run
    expected = measured(tmp_path, folder)
    assert expected["accuracy"] == pytest.approx(result["test/acc_last"])
    for form, name in (("prompt", "model.safetensors"), ("torch", "model.pt2")):
        assert answer_of("export", folder, "--format", form) == 0
        found = measured(tmp_path, f"{folder}/{name}", *words_of(of_colours))
        assert found["confusion"] == expected["confusion"]
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-4)
    assert measured(tmp_path, f"{folder}/last.ckpt") == {
        **expected,
        "model": f"{folder}/last.ckpt",
    }


def test_other_names_in_another_order_are_found(run, tmp_path):
    folder, _ = run
    (tmp_path / "same").mkdir()
    # The walk sorts folders: green, red apple; here a name before both and one after.
    renamed = ("RED-Apple", "Green", "a sky")
    place = folder_of_images(tmp_path / "other", renamed, 8, seed=0)
    words = (*words_of(place), "dataset.name=fruits", "--classes", "a sky=blue_sky")
    found = measured(tmp_path, folder, *words)
    own = measured(tmp_path, folder)
    assert (found["dataset"], own["dataset"]) == ("fruits", "imagefolder")
    assert found["confusion"] == own["confusion"]
    assert found["classes"] == own["classes"]
    assert found["accuracy"] == own["accuracy"]


def test_a_part_of_the_classes_is_enough(run, of_colours, tmp_path):
    folder, _ = run
    place = folder_of_images(tmp_path / "part", COLOURS, 8, seed=0)
    for split in ("train", "test"):
        for file in (place / split / "green").iterdir():
            file.unlink()
        (place / split / "green").rmdir()
    found = measured(tmp_path, folder, *words_of(place))
    whole = measured(tmp_path, folder)
    kept = [number for number, name in enumerate(whole["classes"]) if name != "green"]
    assert [found["confusion"][number] for number in kept] == [
        whole["confusion"][number] for number in kept
    ]
    assert found["images"] == 16
    right = [found["confusion"][n][n] / 8 for n in kept]
    assert found["mean_class_accuracy"] == pytest.approx(sum(right) / 2)


def test_classes_are_matched_by_name():
    known = ["Red Apple", "green", "blue_sky"]
    assert matched(["BLUE SKY", "red-apple"], known) == [2, 0]
    assert matched(["x", "green"], known, pairs_of(["X = red apple"])) == [0, 1]
    assert matched(["Gro\u0308\u00dfe"], ["Gr\u00f6\u00dfe"]) == [0]  # two forms of one name
    assert matched(["a b", "a_b"], ["a b", "a_b"]) == [0, 1]  # equal but for separators
    with pytest.raises(
        UserError, match=r"has no such class \(got 'violet'\).*dataset has green, vi.*"
    ):
        matched(["green", "violet"], known)
    with pytest.raises(UserError, match=r"two of the dataset are the same one of the model"):
        matched(["green", "GREEN"], known)


def test_numbers_are_those_of_loops():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(200, 7, generator=generator)
    targets = torch.randint(0, 6, (200,), generator=generator)  # class 6 has no image
    rows = iter(logits.split(64))
    model = Model(lambda _: next(rows), 1, [str(n) for n in range(7)], None)
    pairs = [(torch.zeros(len(some), 1), some) for some in targets.split(64)]
    found = evaluate(model, pairs, range(7))
    shares, top, loss, bins = [[] for _ in range(7)], 0, 0.0, [[] for _ in range(15)]
    for row, target in zip(logits.double().numpy(), targets.tolist(), strict=True):
        order = np.argsort(-row)
        shares[target].append(order[0] == target)
        top += target in order[:5]
        confidences = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        loss -= np.log(confidences[target]) / 200
        bins[min(14, int(confidences.max() * 15))].append((confidences.max(), order[0] == target))
    gaps = [
        len(b) / 200 * abs(np.mean([r for _, r in b]) - np.mean([c for c, _ in b]))
        for b in bins
        if b
    ]
    assert found["accuracy"] == pytest.approx(np.mean(np.concatenate(shares)))
    assert found["mean_class_accuracy"] == pytest.approx(np.mean([np.mean(s) for s in shares[:6]]))
    assert found["top5"] == pytest.approx(top / 200)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    assert found["calibration_error"] == pytest.approx(sum(gaps), abs=1e-5)
    assert np.sum(found["confusion"]) == 200
    shown = {"model": "m", "dataset": "d", "split": "test", "precision": "32-true", **found}
    assert f"accuracy             {100 * found['accuracy']:6.2f} %" in rendered(shown)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("split=tset",), "split: unknown (got 'tset'). Did you mean 'test'?"),
        (("split=val", "dataset.val_fraction=0"), "split: this dataset has none (got 'val')."),
        (("dataset=digits",), "the model has no such class"),
        (("dataset=digit",), "Did you mean 'digits'?"),
        (("split=test", "split=train"), "split: is named twice (got 'test train')."),
        (("epochs=3",), "eval: takes no such word (got 'epochs=3')."),
        (("paths.data=x",), "paths: the run knows its own (got 'paths.data=x')."),
        (("dataset.source.rot=x",), "dataset.source.rot: no such field"),
        (("dataset.batch_size=0",), "dataset.batch_size: must be at least 1"),
        (("dataset=digits", "dataset.batch_size=0"), "dataset.batch_size: must be at least 1"),
        (
            ("--classes", "a==b"),
            "--classes: must be <the dataset's>=<the model's>,... (got 'a==b')",
        ),
        (("--classes", "green"), "--classes: must be <the dataset's>=<the model's>,... (got 'gre"),
        (("--classes", "x=green"), "--classes: the dataset has no such class (got 'x')"),
        (("--classes", "green=x"), "--classes: the model has no such class (got 'x')"),
        (("--classes", "a=b", "--classes", "a=c"), "--classes: names a class twice (got 'a')"),
        (("--json", "/nowhere/e.json"), "--json: is no file in a folder that is there"),
    ],
)
def test_mistakes_are_answered_in_a_line(run, capfd, words, message):
    assert answer_of("eval", run[0], *words) == 2
    assert message in capfd.readouterr().err


def test_an_export_asks_for_a_dataset(run, capfd):
    folder, _ = run
    answer_of("export", folder)
    assert answer_of("eval", f"{folder}/model.safetensors") == 2
    assert "dataset: is missing. Only a finished run knows its own" in capfd.readouterr().err


def test_the_model_is_looked_at_before_a_dataset_is_asked_for(tmp_path, capfd):
    (tmp_path / "cut.ckpt").write_bytes(b"")
    for place, message in (("nope", "no such file"), ("cut.ckpt", "is damaged")):
        assert answer_of("eval", str(tmp_path / place)) == 2
        assert message in capfd.readouterr().err


def test_fields_of_a_dataset_change_the_runs_own(run, of_colours, tmp_path):
    folder, _ = run
    own = measured(tmp_path, folder)
    other = measured(tmp_path, folder, "dataset.batch_size=3")
    assert other.keys() == own.keys()
    for name, value in own.items():  # sums of other batches are rounded otherwise
        assert other[name] == (pytest.approx(value, abs=1e-6) if type(value) is float else value)
    few = measured(tmp_path, folder, "dataset.test_images=6")
    assert few["images"] == 6
    place = folder_of_images(tmp_path / "copy", COLOURS, 8, seed=0)
    assert measured(tmp_path, folder, f"dataset.source.root={place}") == own
