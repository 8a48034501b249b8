"""Figures show the numbers that lie beside them, and those are right."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch.nn.functional import cross_entropy

from smm_lightning import train as entry
from smm_lightning.errors import UserError
from smm_lightning.figures import __main__ as command
from smm_lightning.figures.confidence import confidence, most_different
from smm_lightning.figures.confusion import confusion
from smm_lightning.figures.curves import curves
from smm_lightning.figures.embedding import embedding, separation
from smm_lightning.figures.loss_change import fully_connected_change, loss_change
from smm_lightning.figures.mapping import mapping
from smm_lightning.figures.patch_size import patch_size
from smm_lightning.figures.pictures import panels
from smm_lightning.figures.registry import Drawn, figure_of, figures
from smm_lightning.figures.style import heat_map, in_lines, new_figure, save
from smm_lightning.figures.trained import Group, TrainedRun
from smm_lightning.method.pictures import VIEWS, equalised, true_colours
from smm_lightning.report.runs import Run, runs_below
from smm_lightning.run.look import look_of_name
from smm_lightning.training.assembly import build_data
from tests.dataset.test_dataset import write_images
from tests.hostile import answer_of
from tests.report.made_up import result, run
from tests.test_train import SMALL

METHODS = ("pad", "full", "smm")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three finished runs on the same digits."""
    root = tmp_path_factory.mktemp("figures")
    for method in METHODS:
        options = [*SMALL, f"method={method}", "epochs=2", "dataset.native_size=16"]
        options += ["trainer.precision=32-true", "protocol=published"]  # figures are in float32
        options += [f"paths.root={root}/runs", f"paths.image_cache={root}/image_cache"]
        with initialize_config_dir(str(entry.CONF), version_base="1.3"):
            entry.train(compose("train", options))
    found, _ = runs_below(root / "runs")
    return sorted(found, key=lambda run: METHODS.index(run.value("method.name")))


@pytest.fixture(scope="module")
def trained(runs):
    return [TrainedRun(run) for run in runs]


def group_of(trained, limit=5000, numbers=None):
    group = Group([one.run for one in trained], limit, numbers)
    group.trained = trained  # without reading weights and images again
    return group


def columns(path):
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    return {name: [row[name] for row in rows] for name in rows[0]}


def test_a_trained_run_answers_as_it_was_tested(trained):
    for one in trained:
        answers = one.answers("test", np.arange(100))
        accuracy = (answers.logits.argmax(1) == answers.targets).float().mean().item()
        assert accuracy == pytest.approx(one.result["test/acc_last"])
        assert answers.losses.mean().item() == pytest.approx(one.result["test/loss_last"], rel=1e-4)
        some = one.answers("test", np.array([3, 50, 99]))
        assert torch.equal(some.targets, answers.targets[[3, 50, 99]])
        torch.testing.assert_close(some.logits, answers.logits[[3, 50, 99]])


def test_first_answers_are_those_before_training(trained):
    """With a pattern of zeros, the first predictions of full are those of the bare network."""
    full = trained[METHODS.index("full")]
    chosen = full.drawn("train", 50)
    bare, _, _ = full.without_prompt("train", chosen)
    torch.testing.assert_close(full.first_answers("train", chosen).source_logits, bare)
    after = full.answers("train", chosen).source_logits  # and the trained weights are back
    assert not torch.allclose(after, bare)
    torch.testing.assert_close(full.answers("train", chosen).source_logits, after)


def test_loss_change_is_final_minus_initial(trained):
    drawn = loss_change(group_of(trained, 150))
    changes, summary = drawn.data, drawn.tables["summary"]
    assert list(changes) == [*METHODS, "fc"]
    one = trained[2]
    chosen = one.drawn("train", 150)
    first, last = one.first_answers("train", chosen), one.answers("train", chosen)
    expected = cross_entropy(last.logits, last.targets, reduction="none")
    expected -= cross_entropy(first.logits, first.targets, reduction="none")
    np.testing.assert_allclose(changes["smm"], expected.numpy(), rtol=1e-5, atol=1e-6)
    rising = dict(zip(summary["method"], summary["share that rises (%)"], strict=True))
    assert rising["smm"] == pytest.approx(100 * (expected > 0).float().mean().item())


def test_a_fully_connected_layer_learns_what_can_be_separated():
    torch.manual_seed(0)
    targets = torch.arange(300) % 3
    features = torch.eye(3)[targets] + 0.1 * torch.randn(300, 3)
    assert (fully_connected_change(features, targets) < 0).all()


def test_separation_knows_good_from_bad():
    targets = np.arange(200) % 4
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(200, 4))
    apart = separation(20 * np.eye(4)[targets] + noise, targets)
    mixed = separation(noise, targets)
    assert apart[0] > 0.7 > mixed[0]
    assert apart[1] == 100
    assert mixed[1] < 50


def test_confidence_takes_the_images_where_methods_differ(trained):
    data = confidence(group_of(trained, 100)).data
    every = np.arange(200)
    found = torch.stack([one.answers("train", every).confidences for one in trained])
    drawn = trained[0].drawn("train", 100)
    assert data["image"][0] == drawn[found[:, drawn].std(0).argmax()]
    targets = trained[0].answers("train", every).targets
    assert len(set(targets[data["image"]].tolist())) == 4
    for row, method in enumerate(METHODS):
        np.testing.assert_allclose(data[method], found[row, data["image"]].numpy(), rtol=1e-5)
    chosen = confidence(group_of(trained, 100, [5, 1])).data
    assert chosen["image"] == [5, 1]
    np.testing.assert_allclose(chosen["smm"], found[2, [5, 1]].numpy(), rtol=1e-5)
    with pytest.raises(UserError, match=r"--images: must be below 200 .got 200."):
        confidence(group_of(trained, 100, [200]))


def test_one_image_of_a_class_is_chosen():
    confidences = np.array([[0.1, 0.2, 0.3, 0.5], [0.9, 0.9, 0.8, 0.6]])
    assert most_different(confidences, torch.tensor([1, 1, 0, 2]), 2) == [0, 2]


def test_confusion_and_mapping_count_all_images(trained):
    one = trained[2]
    data = confusion(one).data
    assert data["counts"].sum() == 100
    accuracy = np.trace(data["counts"]) / 100
    assert accuracy == pytest.approx(one.result["test/acc_last"])
    data = mapping(one).data
    answers = one.answers("train", np.arange(200))
    chosen = [row["sources"][0]["index"] for row in one.result["mapping"]]
    predicted = answers.source_logits.argmax(1)
    for target, place in np.ndindex(10, 10):
        expected = ((predicted == chosen[place]) & (answers.targets == target)).sum()
        assert data["counts"][target, place] == expected
    assert data["names"][3].startswith("3 \N{LEFTWARDS ARROW} ")


def test_pictures_are_what_the_network_is_shown(trained):
    one = trained[2]
    arrays, names = panels(one, count=3)
    assert list(arrays) == list(VIEWS)
    assert len(set(names)) == 3
    transform = one.classifier.input_transform
    std = transform.variance.sqrt().numpy()
    expected = arrays["image"] + arrays["pattern"] * arrays["mask"] * std  # equation 3, in pixels
    np.testing.assert_allclose(arrays["shown"], expected, rtol=1e-4, atol=1e-4)


SORTED = [f"class {number}" for number in range(6)]


@pytest.fixture(scope="module")
def sorted_runs(tmp_path_factory):
    """Two runs on an image folder: its files stand in the order of their classes."""
    root = tmp_path_factory.mktemp("sorted")
    for split, count in (("train", 8), ("test", 4)):
        write_images(root / "images", split, SORTED, count)
    options = ["dataset=imagefolder", f"dataset.source.root={root}/images", "dataset.batch_size=8"]
    options += ["backbone=tiny", "trainer=cpu", "trainer.precision=32-true", "epochs=1"]
    options += [
        f"paths.root={root}/runs",
        f"paths.image_cache={root}/image_cache",
        "dataset.native_size=16",
    ]
    for method in ("pad", "smm"):
        with initialize_config_dir(str(entry.CONF), version_base="1.3"):
            entry.train(compose("train", [*options, f"method={method}"]))
    return [TrainedRun(run) for run in runs_below(root / "runs")[0]]


@pytest.mark.parametrize("limit", [6, 13, 24])
def test_figures_see_all_classes_of_a_sorted_dataset_and_the_same_images(sorted_runs, limit):
    changes = loss_change(group_of(sorted_runs, limit)).data
    assert {len(change) for change in changes.values()} == {limit}
    for one in sorted_runs:
        assert len(set(one.labels("train")[one.drawn("train", limit)])) == len(SORTED)
        np.testing.assert_array_equal(
            one.drawn("train", limit), sorted_runs[0].drawn("train", limit)
        )


def test_the_embedding_sees_all_classes_of_a_sorted_dataset(sorted_runs):
    points = embedding(group_of(sorted_runs, 36)).data
    assert np.bincount(points["target"]).tolist() == [6] * len(SORTED)
    with pytest.raises(UserError, match=r"--limit: an embedding needs 5 images of a class"):
        embedding(group_of(sorted_runs, 12))


def test_pictures_of_a_sorted_dataset_are_of_different_classes(sorted_runs):
    for one in sorted_runs:
        _, names = panels(one, count=5)
        assert len(set(names)) == 5
        _, again = panels(one, count=5)
        assert again == names
    assert names[-1] not in SORTED[:4] or names[0] != SORTED[0]  # not the first ones


def test_the_mapping_is_counted_on_all_images(sorted_runs):
    for one in sorted_runs:
        # One of eight is of val.
        assert one.counts("train").sum(0).tolist() == [7] * len(SORTED)


def test_a_result_that_does_not_say_its_images_draws_no_figure(sorted_runs):
    one = sorted_runs[0].run
    old = {name: value for name, value in one.result.items() if name != "class_names"}
    with pytest.raises(UserError, match=r"was written by an older version"):
        _ = TrainedRun(Run(one.folder, one.values, old)).class_names


def test_weights_of_another_version_draw_no_figure_and_results_alone_do(sorted_runs, tmp_path):
    one = sorted_runs[0].run
    copy = tmp_path / "runs/old"
    shutil.copytree(one.folder, copy)
    checkpoint = torch.load(copy / "last.ckpt", weights_only=True)
    checkpoint["identity"]["schema"] = 3
    torch.save(checkpoint, copy / "last.ckpt")
    result = json.loads((copy / "result.json").read_text())
    del result["identity"]
    result["config"]["optimizer"] = {"pattern": {"lr": 0.01, "decay": 0.1}}  # names of before
    (copy / "result.json").write_text(json.dumps(result))
    ((old,), _) = runs_below(tmp_path / "runs")
    with pytest.raises(UserError, match=r"old/last.ckpt: is a checkpoint of another .*got 3"):
        _ = TrainedRun(old).classifier
    command.draw_group(Group([old]), tmp_path / "figures", "old", [figure_of("training")])
    assert [path.suffix for path in sorted((tmp_path / "figures").iterdir())] == [
        *(".csv", ".pdf", ".png")
    ]


def test_images_that_changed_since_the_training_draw_no_figure(sorted_runs):
    one = sorted_runs[0].run
    root = Path(one.value("dataset.source.root"))
    file = root / "train" / SORTED[2] / "1.png"
    content = file.read_bytes()
    Image.new("RGB", (9, 9)).save(file)
    with pytest.raises(UserError, match=r"was trained with other images: other images in train"):
        _ = TrainedRun(one).class_names
    file.write_bytes(content)
    assert len(TrainedRun(one).class_names) == len(SORTED)


def test_runs_on_other_images_are_not_compared(runs, sorted_runs, tmp_path):
    options = [*SMALL, "dataset.subset_seed=1", "epochs=1", f"paths.root={tmp_path}"]
    with initialize_config_dir(str(entry.CONF), version_base="1.3"):
        entry.train(compose("train", [*options, f"paths.image_cache={tmp_path}/image_cache"]))
    ((other,), _) = runs_below(tmp_path)
    with pytest.raises(UserError, match=r"figures: runs with other training images"):
        loss_change(group_of([TrainedRun(runs[0]), TrainedRun(other)], 100))


def test_looks():
    picture = np.linspace(-2, 1, 48, dtype=np.float32).reshape(4, 4, 3)
    seen = true_colours(picture, centred=True)
    assert seen.min() == 0
    assert seen.max() == pytest.approx(0.75)
    assert true_colours(np.zeros((2, 2, 3), np.float32), centred=True).mean() == 0.5
    ranks = equalised(picture, centred=True)
    for channel in range(3):
        np.testing.assert_allclose(np.sort(ranks[..., channel].ravel()), np.linspace(0, 1, 16))
    assert (equalised(np.ones((2, 2, 3), np.float32), centred=False) == 0.5).all()


def test_patch_sizes_with_bands_and_lines(tmp_path):
    made = [
        run(
            tmp_path,
            result(method="smm", seed=seed, accuracy=value, config__method__patch_size=size),
        )
        for size, values in ((4, (0.5, 0.7)), (8, (0.6, 0.6)))
        for seed, value in enumerate(values)
    ]
    made.append(run(tmp_path, result(method="full", accuracy=0.4)))
    data = patch_size(Group(made)).data
    assert data["method"] == ["smm", "smm", "full"]
    assert data["patch size"] == [4, 8, None]
    assert data["mean"] == pytest.approx([60, 60, 40])
    assert data["std"] == pytest.approx([np.sqrt(200), 0, 0])
    assert data["n"] == [2, 2, 1]


def test_runs_of_a_table_stand_where_accuracies_are_enough(tmp_path):
    history = [{"epoch": 0, "train/loss": 2.0, "train/acc": 0.5}]
    results = [
        result(method="smm", seed=seed, config__method__patch_size=size, history=history)
        | {"run_key": f"{size} {seed}"}
        for size in (4, 8)
        for seed in (0, 1)
    ]
    results[2] |= {"recorded": "grid.csv", "history": None}
    chosen = [figure_of(name) for name in ("patch_size", "training")]
    made = [run(tmp_path, one) for one in results]
    files = command.draw_group(Group(made), tmp_path, "all", chosen)
    assert [path.name for path in files] == ["patch_size-all.png", "training-all.png"]
    assert columns(tmp_path / "patch_size-all.csv")["n"] == ["2", "2"]
    training = tmp_path / "training-all.csv"
    assert columns(training)["n"] == ["2", "1"]  # whose settings differ
    assert columns(training)["method"] == ["smm, patch_size 4", "smm, patch_size 8"]
    assert training.read_text().startswith("# runs: 4 0 4 1 8 1\n")

    assert command.draw_group(Group([made[2]]), tmp_path / "none", "one", chosen) == []


def test_a_grid_under_version_control_is_drawn_without_its_folders(tmp_path, capsys):
    grid = "small_figure4", f"paths.root={tmp_path}", "--only"
    assert answer_of("figures", *grid, "patch_size,training") == 0
    left_out = "left out: 48 of 48 runs stand in a table alone"
    assert left_out in capsys.readouterr().err
    of_smm = {}
    for path in tmp_path.rglob("*.csv"):
        rows = columns(path)
        assert set(rows["n"]) == {"3"}
        of_smm[path.stem] = float(rows["mean"][rows["patch size"].index("8")])
    assert of_smm == {  # as in docs/RESULTS.md
        "patch_size-eurosat_subset": pytest.approx(66.2, abs=0.05),
        "patch_size-gtsrb_subset": pytest.approx(43.7, abs=0.05),
    }
    assert answer_of("figures", *grid, "patch_size") == 0
    assert "left out" not in capsys.readouterr().err
    assert answer_of("figures", *grid, "pictures") == 2
    assert "paths.results=null trains them here" in capsys.readouterr().err


def test_figures_are_files_with_their_data(tmp_path):
    figure = new_figure()
    figure.subplots().plot([1, 2])
    drawn = Drawn(figure, {"x": [1, 2], "y": [3.5, 4]})
    path = save(drawn, tmp_path / "a", "What it shows.", ["k1", "k2"])
    assert path.name == "a.png"
    assert columns(tmp_path / "a.csv") == {"x": ["1", "2"], "y": ["3.5", "4.0"]}
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(path) as image:
        assert image.width == 680
        assert image.info["Description"] == "What it shows."
    assert (tmp_path / "a.csv").read_text().startswith("# runs: k1 k2\n")
    save(Drawn(figure, {"x": np.zeros((2, 2))}), tmp_path / "b", runs=["k3"])
    with np.load(tmp_path / "b.npz") as archive:
        assert archive["runs"].tolist() == ["k3"]
        assert archive["x"].shape == (2, 2)


def test_curves_show_every_epoch_and_leave_out_what_was_not_measured(tmp_path):
    rows = [
        {
            "epoch": 0,
            "train/loss": 2.0,
            "train/acc": 0.3,
            "mapping/changed": 10.0,
            "test/acc": None,
        },
        {"epoch": 1, "train/loss": 1.5, "train/acc": 0.4, "mapping/changed": 2.0, "test/acc": 0.5},
    ]
    drawn = curves(TrainedRun(run(tmp_path, result(history=rows, class_names=["a", "b"]))))
    figure, data = drawn.figure, drawn.data
    titles = [axis.get_title() for axis in figure.axes if axis.axison]
    assert titles == ["training loss", "accuracy (%)", "changed source classes"]
    assert data["test/acc"] == pytest.approx([np.nan, 0.5], nan_ok=True)
    (test,) = [line for line in figure.axes[1].lines if line.get_label() == "test"]
    assert (test.get_xdata().tolist(), test.get_ydata().tolist()) == ([2], [50])
    guessing = figure.axes[0].lines[-1]
    assert list(guessing.get_ydata()) == pytest.approx([np.log(2)] * 2)
    for row in rows:
        row |= {"prompt/mask": 0.9, "prompt/distance": 0.5}
    drawn = curves(TrainedRun(run(tmp_path, result(history=rows))))
    figure, data = drawn.figure, drawn.data
    assert figure.axes[3].get_title() == "prompt"
    assert data["prompt/distance"] == [0.5, 0.5]


def test_methods_keep_their_look(runs):
    looks = [run.look for run in runs]
    assert [look.label for look in looks] == ["Pad", "Full", "SMM"]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == 3
    assert look_of_name("unheard of") == look_of_name("unheard of")


def test_a_method_that_inherits_a_look_keeps_its_name(tmp_path):
    look = {"label": "SMM", "colour": "#0072B2", "marker": "o"}
    named = [run(tmp_path, result(method=m, config__method__look=look)) for m in ("smm", "mine")]
    looks = Group(named).looks
    assert (looks["smm"].label, looks["mine"].label) == ("SMM", "mine")
    assert looks["mine"] == look_of_name("mine")


def test_every_figure_has_a_caption_and_heads_name_no_run(trained):
    """Who finds figures by their files finds all of them."""
    for one in figures().values():
        assert one.caption.endswith(".")
        group = group_of(trained, 100)
        drawn = one.draw({"run": trained[2], "group": group, "data": trained[2]._data}[one.of])
        if drawn is None:
            assert one.name == "patch_size"
            continue
        heads = [drawn.figure.get_suptitle(), *(axis.get_title() for axis in drawn.figure.axes)]
        assert "digits" in " ".join(heads)
        assert not any(each.run.key in " ".join(heads) for each in trained)


def test_titles_and_names_fit():
    """Whatever a run is called, nothing of it is cut at an edge."""
    title = "Images seen as each source (%): a_dataset_with_a_long_name, smm, recipe steady, seed 0"
    drawn = heat_map(np.eye(2), ["a", "b"], ["c", "d"], title, "source class")
    FigureCanvasAgg(drawn).draw()
    (head,) = (text for text in drawn.texts if text.get_text() == drawn.get_suptitle())
    assert head.get_text().replace("\n", " ") == title
    whole, box = drawn.bbox, head.get_window_extent()
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert box.y1 <= whole.y1
    assert in_lines("staffordshire_bull_terrier") == "staffordshire_\nbull_terrier"
    assert in_lines("HerbaceousVegetation") == "Herbaceous\nVegetation"
    assert in_lines("a very long name") == "a very long\nname"
    assert in_lines("Donaudampfschifffahrt") == "Donaudampfsch…"
    assert in_lines("7") == "7"


def test_the_command_draws_everything(runs, monkeypatch, capsys):
    root = runs[0].folder.parent
    monkeypatch.setattr("sys.argv", ["figures", str(root), "--limit", "120"])
    monkeypatch.delenv("DISPLAY", raising=False)
    command.main()
    made = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert len([path for path in made if path.stem != "before_after"]) == 4 + 3 * 4
    for path in made:
        assert path.with_suffix(".pdf").exists()
        assert path.with_suffix(".csv").exists() or path.with_suffix(".npz").exists()
    folder = root / f"reports/Runs_in_{root.name}/figures"
    scores = columns(folder / "embedding-digits-scores.csv")
    assert scores["method"] == ["none", *sorted(METHODS)]
    monkeypatch.setattr("sys.argv", ["figures", str(runs[2].folder), "--only", "curves"])
    command.main()
    assert capsys.readouterr().out.strip() == str(runs[2].folder / "figures/curves.png")
    assert columns(runs[2].folder / "figures/curves.csv")["epoch"] == ["1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smok"], r"experiment: unknown"),
        (["smoke", "--only", "mask"], r"--only: unknown .got 'mask'.*Known: batch, before"),
        (["smoke", "--limit", "0"], r"--limit: must be at least 1"),
        (["smoke", "--images", "a"], r"--images: must be numbers"),
        (
            ["smoke", "paths.root=nowhere", "paths.results=null"],
            r"figures: no run of smoke is finished",
        ),
    ],
)
def test_wrong_commands_are_answered(monkeypatch, arguments, message):
    from smm_lightning.errors import UserError

    monkeypatch.setattr("sys.argv", ["figures", *arguments])
    with pytest.raises(UserError, match=message):
        command.main()


def test_a_batch_is_drawn_before_there_is_a_run(tmp_path, capfd):
    root = tmp_path / "photos"
    write_images(root, "train", ("cat", "a dog"), count=5)
    write_images(root, "test", ("cat", "a dog"), count=2)  # the same generator: the same images
    words = ["dataset=imagefolder", f"dataset.source.root={root}", "dataset.batch_size=2"]
    words += [f"paths.root={tmp_path}/runs", f"paths.image_cache={tmp_path}/cache"]
    words += ["protocol=published"]
    assert answer_of("figures", *words, "backbone=tiny", "--only", "batch") == 0
    place = tmp_path / "runs/figures"
    assert str(place / "batch-imagefolder.png") in capfd.readouterr().out
    counts = columns(place / "batch-imagefolder-counts.csv")
    assert counts == {"class": ["a dog", "cat"], "train": ["5", "5"], "test": ["2", "2"]}
    twins = columns(place / "batch-imagefolder-twins.csv")
    assert set(zip(twins["train"], twins["test"], strict=True)) >= {("cat/0.png", "cat/0.png")}
    with np.load(place / "batch-imagefolder.npz") as shown:
        assert shown["images"].shape == (10, 32, 32, 3)
        assert len(set(shown["names"])) == 10
        shown_first = shown["images"].copy()
    capfd.readouterr()
    assert answer_of("figures", *words, "backbone=tiny", "seed=1") == 0  # augmented anew
    with np.load(place / "batch-imagefolder.npz") as shown:
        assert not np.array_equal(shown["images"], shown_first)


def test_images_have_the_name_that_the_configuration_gives_them(composed, tmp_path):
    for split in ("train", "test"):
        write_images(tmp_path / "photos", split, ("cat", "dog"), count=5)
    words = ["dataset=imagefolder", f"dataset.source.root={tmp_path}/photos", "backbone=tiny"]
    cfg = composed(*words, "dataset.name=pets", "protocol=published", "dataset.batch_size=2")
    data = build_data(cfg.backbone, cfg.method, cfg.dataset)
    data.setup()
    head = figures()["batch"].draw(data).figure.get_suptitle()
    assert head == "pets: train 10, test 10, 2 classes"


def test_figures_of_images_and_of_runs_are_told_apart(tmp_path, runs, capfd):
    assert answer_of("figures", "dataset=digits", "--only", "confusion") == 2
    assert "--only: is drawn of runs (got 'confusion')" in capfd.readouterr().err
    assert answer_of("figures", runs[0].folder, "--only", "batch") == 2
    assert "Use dataset=<name>." in capfd.readouterr().err
    shutil.copytree(runs[0].folder, tmp_path / "seed=0")
    assert answer_of("figures", tmp_path / "seed=0", "--only", "mapping") == 0
    capfd.readouterr()
    assert answer_of("figures", "dataset=digit") == 2
    assert "Did you mean 'digits'" in capfd.readouterr().err
