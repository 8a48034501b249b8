"""Protocols: what may choose, what is read when, and what the card says of it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from smm_lightning.classifier import ReprogrammedClassifier
from smm_lightning.dataset import Digits, ImageDataModule
from smm_lightning.dataset.sources import Listing
from smm_lightning.dataset.splits import ArraySplit, Splits
from smm_lightning.errors import UserError
from smm_lightning.figures.__main__ import groups_of
from smm_lightning.figures.before_after import before_after
from smm_lightning.figures.pictures import pictures
from smm_lightning.figures.trained import TrainedRun
from smm_lightning.files import at
from smm_lightning.report.__main__ import report_of
from smm_lightning.report.chosen import chosen_on_val
from smm_lightning.report.layout import Layout
from smm_lightning.report.runs import run_in, runs_below
from smm_lightning.report.tables import unlike_cards
from smm_lightning.run.card import lines
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.train import train
from tests import hostile
from tests.assembled import assemble
from tests.report.made_up import result as made_up
from tests.report.made_up import run as made_run
from tests.report.made_up import write

SMALL = (
    *("backbone=tiny", "trainer=cpu", "dataset.train_images=200", "dataset.test_images=100"),
    *("dataset.batch_size=20", "threads=1", "epochs=4"),
)
HERE = Path("runs/made-up")
RATES = (0.1, 0.3)
FALLING = ("method=full", "optimizer.groups.pattern.lr=1")  # of which the first epoch is the best
SCRAMBLED = f"dataset.source._target_={__name__}.Scrambled"


class Scrambled(Digits):
    """Digits whose test labels say nothing."""

    def listings(self, load=None):
        known = super().listings(load)
        return {**known, "test": Listing("digits/test, scrambled")}

    def load(self):
        known = super().load()
        labels = np.random.default_rng(1).permutation(known.test.labels)
        test = ArraySplit("digits/test", known.test.images, labels)
        return Splits(known.train, test, known.val, known.class_names)


@pytest.fixture
def answer_of(capsys):
    """Of a command: its status, and what it said."""

    def answer(verb, *words):
        capsys.readouterr()
        status = hostile.answer_of(verb, *words)
        return SimpleNamespace(status=status, text="".join(capsys.readouterr()))

    return answer


def fitted(cfg):
    """Result and checkpoints of a run."""
    result = train(cfg)
    states = [read_checkpoint(run_folder(cfg) / f"{n}.ckpt") for n in ("best", "last")]
    return result, states


def run_folder(cfg):
    return at(cfg.paths.run)


def of_training(result):
    """All that a training found out without the test."""
    history = [
        {n: v for n, v in row.items() if not n.startswith(("time/", "test/"))}
        for row in result["history"]
    ]
    names = ("best/epoch", "best/selected_on", "val/acc", "temperature", "mapping")
    return [history, *(result[name] for name in names)]


def test_under_strict_scrambled_test_labels_change_no_choice(composed):
    honest, scrambled = [], []
    for rate in RATES:
        words = (*SMALL, "method=full", f"optimizer.groups.pattern.lr={rate}")
        for runs, more in ((honest, ()), (scrambled, (SCRAMBLED,))):
            cfg = composed(*words, *more)
            runs.append((run_folder(cfg), *fitted(cfg)))
    for (_, one, states), (_, other, others) in zip(honest, scrambled, strict=True):
        assert one["test/acc_last"] != other["test/acc_last"]
        assert of_training(one) == of_training(other)
        for state, another in zip(states, others, strict=True):
            assert state["epoch"] == another["epoch"]
            for name, value in state["state_dict"].items():
                assert torch.equal(value, another["state_dict"][name]), name
    layout = Layout(tried=("optimizer.groups.pattern.lr",))
    rates = []
    for runs in (honest, scrambled):
        (chosen,), _ = chosen_on_val([run_in(folder) for folder, *_ in runs], layout)
        rates.append(chosen.value("optimizer.groups.pattern.lr"))
    assert rates[0] == rates[1]
    drawn = [
        [figure(TrainedRun(run_in(runs[1][0]), [__name__])) for figure in (before_after, pictures)]
        for runs in (honest, scrambled)
    ]
    for one, other in zip(*drawn, strict=True):
        assert one is not None
        for name, values in one.data.items():
            np.testing.assert_array_equal(values, other.data[name], err_msg=name)


def test_under_published_the_test_chooses(composed):
    words = (*SMALL, "protocol=published", "mapping=fc", "optimizer.groups.mapping.lr=0.03")
    honest, scrambled = (train(composed(*words, *more)) for more in ((), (SCRAMBLED,)))
    for result in (honest, scrambled):
        tested = [row["test/acc"] for row in result["history"]]
        assert result["best/selected_on"] == "test"
        assert result["best/epoch"] == tested.index(max(tested))
        assert result["test/acc_best_test"] == max(tested)
        assert result["test/acc_best_val"] is None
        assert result["card"]["test set"] == "watched after every epoch"
        assert result["card"]["train images"] == 200
    assert honest["best/epoch"] != scrambled["best/epoch"]


def test_the_test_is_read_after_the_training_alone(composed, monkeypatch):
    read = []
    prepared = ImageDataModule._prepared

    def noted(data, batch):
        read.append(batch["split"])
        return prepared(data, batch)

    monkeypatch.setattr(ImageDataModule, "_prepared", noted)
    train(composed(*SMALL))
    first = read.index("test")
    assert {"train", "val"} == set(read[:first])
    assert set(read[first:]) == {"test"}
    read.clear()
    train(composed(*SMALL, "dataset.observe_test=true"))
    assert "train" in read[read.index("test") :]


def test_the_best_weights_are_tested_as_a_watched_test_would_have(composed):
    words = (*SMALL, *FALLING)
    once = train(composed(*words))
    watched = train(composed(*words, "dataset.observe_test=true"))
    assert of_training(once) == of_training(watched)
    assert once["best/epoch"] < 3  # else its weights are the last ones
    assert once["test/acc_best_val"] == watched["history"][once["best/epoch"]]["test/acc"]
    assert once["test/acc_best_val"] == watched["test/acc_best_val"]
    assert once["test/acc_last"] == watched["test/acc_last"]
    tested = [row["test/acc"] for row in watched["history"]]
    assert watched["test/acc_best_test"] == max(tested)
    assert once["test/acc_best_test"] is None
    assert once["mapping"] == watched["mapping"]  # of the last weights


def test_where_the_best_weights_are_not_kept_they_are_not_tested(composed, capsys):
    result = train(composed(*SMALL, *FALLING, "callbacks=none"))
    assert result["best/epoch"] < 3
    assert result["test/acc_best_val"] is None
    said = capsys.readouterr().out
    assert "the best on val, were not tested: ckpt_path: no such file" in said


@pytest.mark.parametrize("watched", ["true", "false"])
def test_without_val_nothing_is_chosen(composed, watched):
    cfg = composed(*SMALL, "dataset.val_fraction=0", f"dataset.observe_test={watched}")
    result = train(cfg)
    assert (result["best/epoch"], result["best/selected_on"]) == (3, None)
    assert result["test/acc_best_val"] is None
    assert (result["test/acc_best_test"] is None) == (watched == "false")
    assert result["card"]["selection"] == "last epoch"
    assert not (run_folder(cfg) / "best.ckpt").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("objective=test/acc_last",), r"objective: the test decides nothing under protocol=str"),
        (
            (
                "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
                "+callbacks.stop.monitor=test/loss",
            ),
            r"callbacks.stop.monitor: the test decides .*test/loss'.. Use val/loss, or prot",
        ),
        (("protocol.name=mine",), r"protocol.name: must be 'strict' or 'published'"),
    ],
)
def test_the_test_may_not_decide(composed, words, message):
    with pytest.raises(UserError, match=message):
        train(composed(*SMALL, *words))


def test_who_stops_by_the_test_says_so_in_the_card(composed):
    stop = "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping"
    words = (stop, "+callbacks.stop.monitor=test/loss", "protocol=published", "epochs=2")
    assert train(composed(*SMALL, *words))["card"]["stopped by"] == "test/loss"


def test_who_only_watches_stops_nothing(composed):
    keep = "+callbacks.keep._target_=lightning.pytorch.callbacks.ModelCheckpoint"
    words = (keep, "+callbacks.keep.monitor=val/loss", "epochs=1")
    assert "stopped by" not in train(composed(*SMALL, *words))["card"]


def test_what_waits_for_val_is_told_that_there_is_none(composed):
    stop = "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping"
    words = (stop, "+callbacks.stop.monitor=val/loss", "dataset.val_fraction=0")
    with pytest.raises(UserError, match=r"callbacks.stop.monitor: there is no val .*val_fraction"):
        train(composed(*SMALL, *words))


def test_limits_stand_in_the_card(composed):
    words = ("+trainer.limit_test_batches=1", "+trainer.overfit_batches=2", "epochs=1")
    words = tuple(word.replace("+trainer.limit", "trainer.limit") for word in words)
    card = train(composed(*SMALL, *words))["card"]
    assert card["limits"] == "limit_test_batches 1, overfit_batches 2"


def test_a_card_is_of_what_was_watched_not_of_what_was_asked_for(composed, tmp_path):
    words = (*SMALL, "epochs=1", "dataset.observe_test=true", f"paths.run={tmp_path}/first")
    assert train(composed(*words))["card"]["test set"] == "watched after every epoch"
    more = (*SMALL, "epochs=2", f"ckpt_path={tmp_path}/first/last.ckpt")
    assert train(composed(*more))["card"]["test set"] == "watched after some epochs"


def test_where_nothing_is_trained_nothing_is_chosen(composed):
    result = train(composed(*SMALL, "method=none", "mapping=blm"))
    assert result["card"]["network passes"] == "0 to train and 1 to count, 1 to predict"
    assert result["card"]["selection"] == "last epoch"
    assert not any(name.endswith("trained on") for name in result["card"])


def test_dashboards_show_no_test_image(composed, monkeypatch):
    """The images of the panels are chosen by their labels."""
    from smm_lightning.training.panels import TensorBoardPanels

    data, module = assemble(composed(*SMALL, "dataset.observe_test=true"))
    asked = []
    monkeypatch.setattr(data, "drawn", lambda split, _: asked.append(split) or np.arange(2))
    panels = TensorBoardPanels()
    panels._fixed_images(SimpleNamespace(datamodule=data), module)
    assert asked == ["val"]


def test_the_card_says_how_a_number_was_made(composed):
    words = ("mapping=fc", "dataset.shots=3", "dataset.train_images=null", "epochs=1")
    cfg = composed(*SMALL, *words, "trainer.precision=32-true")
    result = train(cfg)
    card = result["card"]
    assert (
        card
        == {
            "protocol": "strict",
            "test set": "read after the training alone",
            "selection": "last epoch",  # of one there is no best
            "prompt trained on": "train",
            "head trained on": "train",
            "train images": 30,
            "test images": 100,
            "val images": 30,
            **{
                f"{s} checksum": result["images"][s]["digest"][:16]
                for s in ("train", "test", "val")
            },
            "shots": 3,
            "draw": "nested",
            "draw seed": 0,
            "preprocessing": "resized to 32 px",
            "normalisation": "mean 0.485 0.456 0.406, std 0.229 0.224 0.225",
            "precision": "32-true",
            "temperature": 1.0,
            "network passes": "1 to train and 0 to count, 1 to predict",
        }
    )
    prompt = ReprogrammedClassifier.from_pretrained(run_folder(cfg))
    assert card.items() <= prompt.card.items()
    assert (prompt.card["mapping"], prompt.card["test accuracy"]) == ("fc", result["test/acc_last"])
    assert prompt.card["epochs"] == 1
    text = str(prompt.generate_model_card())
    assert "| test set | read after the training alone |" in text


def test_counting_passes_are_counted(composed):
    words = (*SMALL, "recipe=paper")
    passes = [
        train(composed(*words, f"mapping={mapping}"))["card"]["network passes"].split(" and ")[1]
        for mapping in ("ilm", "flm", "rlm")
    ]
    assert [text.split(" ")[0] for text in passes] == ["4", "1", "0"]


def test_runs_of_unlike_cards_are_refused_or_apart(tmp_path, answer_of):
    card = {"protocol": "strict", "test set": "read after", "train images": 100, "test images": 50}
    write(tmp_path / "a", made_up(accuracy=0.5))
    write(tmp_path / "b", made_up(seed=1, accuracy=0.7, card=card))
    write(tmp_path / "c", made_up(seed=1, method="full", accuracy=0.6, card=card))
    refused = answer_of("report", str(tmp_path))
    assert refused.status == 2
    wanted = "report: unlike protocol cards: protocol is strict in 2, published in 1 of 3 runs"
    assert f"{wanted}. --separate puts" in refused.text
    assert not (tmp_path / "reports").exists()
    apart = answer_of("report", str(tmp_path), "--separate")
    assert apart.status == 0
    assert "| cifar10, protocol=published |  | 50.0 |" in apart.text.replace("**", "")
    assert "| cifar10, protocol=strict | 60.0 | 70.0 |" in apart.text.replace("**", "")
    assert "| average" not in apart.text
    assert "Card: protocol: published" not in apart.text  # one line says what differs
    assert "differs: protocol (strict / published)" in apart.text
    page = next((tmp_path / "reports").rglob("report.html")).read_text()
    assert "differs: protocol (strict / published)" in page


def test_methods_of_unlike_cards_are_not_compared(tmp_path, answer_of):
    write(tmp_path / "a", made_up(accuracy=0.5))
    other = {**made_up()["card"], "train images": 90}
    write(tmp_path / "b", made_up(method="full", card=other))
    refused = answer_of("report", str(tmp_path))
    assert "train images is 90 in 1, 100 in 1 of 2 runs" in refused.text


@pytest.mark.parametrize("axis", ["mapping.name", "recipe.name"])
def test_columns_of_unlike_cards_are_not_compared_whatever_they_are(axis):
    group = axis.split(".")[0]
    runs = []
    for name, images in (("one", 100), ("two", 90)):
        content = made_up(card={**made_up()["card"], "train images": images})
        content["config"][group] = {"name": name}
        runs.append(made_run(HERE, content))
    with pytest.raises(UserError, match=r"train images is 100 in 1, 90 in 1 of 2 runs"):
        report_of("x", runs, Layout(columns=(axis,)))
    both = report_of("x", runs, Layout(columns=(axis,)), separate=True)
    assert both.tables[0].rows == ["cifar10, train images=100", "cifar10, train images=90"]


def test_values_are_not_chosen_among_unlike_cards():
    runs = []
    for rate, images in ((0.1, 100), (0.3, 90)):
        content = made_up(card={**made_up()["card"], "val images": images}, **{"val/acc": rate})
        content["config"]["optimizer"] = {"lr": rate}
        runs.append(made_run(HERE, content))
    with pytest.raises(UserError, match=r"val images is 100 in 1, 90 in 1 of 2 runs"):
        report_of("x", runs, Layout(tried=("optimizer.lr",)))


def test_one_epoch_and_several_are_settings_not_cards():
    runs = [
        made_run(HERE, made_up(seed=seed, card={**made_up()["card"], "selection": selection}))
        for seed, selection in enumerate(("last epoch", "last epoch; best epoch by val"))
    ]
    assert unlike_cards(runs, Layout()) == {}


def test_what_a_card_lacks_is_called_none():
    cards = [{"protocol": "strict", "shots": 16}, {"protocol": "strict"}]
    assert lines(cards) == ["protocol: strict", "differs: shots (16 / none)"]
    evil = [{"protocol": "strict", "x": "two\nlines"}]
    assert lines(evil) == ["protocol: strict; x: two lines"]


def test_results_of_older_versions_are_named(tmp_path):
    old = made_up()
    del old["card"]
    write(tmp_path / "old", old)
    write(tmp_path / "new", made_up())
    runs, broken = runs_below(tmp_path)
    assert len(runs) == 1
    assert "old/result.json: was written by an older version, without a protocol card" in broken[0]
    assert "force=true runs it anew" in broken[0]


def test_figures_compare_no_unlike_cards(tmp_path):
    for name, more in (("a", {}), ("b", {"method": "full"})):
        write(tmp_path / name, made_up(**more))
        card = {**made_up()["card"], "protocol": "strict"}
        write(tmp_path / f"{name}2", made_up(seed=1, **more, card=card))
    runs, _ = runs_below(tmp_path)
    groups = {
        name: [run.folder.name for run in members] for name, members in groups_of(runs).items()
    }
    assert groups == {"cifar10-published": ["a", "b"], "cifar10-strict": ["a2", "b2"]}


def test_a_drawn_few_shot_list_keeps_no_seeds_apart(tmp_path, answer_of):
    for seed in (0, 1):
        card = {**made_up()["card"], "shots": 16, "train checksum": str(seed) * 16}
        write(tmp_path / str(seed), made_up(seed=seed, card=card))
    answer = answer_of("report", str(tmp_path))
    assert answer.status == 0
    assert "| cifar10 | 50.0 ± 0.0 |" in answer.text.replace("**", "")


def test_a_sweep_over_protocols_stands_in_rows(tmp_path):
    json_of = {"strict": {"protocol": "strict"}, "published": {"protocol": "published"}}
    for name, card in json_of.items():
        content = made_up(card={**made_up()["card"], **card}) | {"run_key": name}
        content["config"]["protocol"] = {"name": name}
        write(tmp_path / name, json.loads(json.dumps(content)))
    runs, _ = runs_below(tmp_path)
    assert unlike_cards(runs, Layout(rows=("protocol.name",))) == {}
    assert list(unlike_cards(runs, Layout())) == ["protocol"]
