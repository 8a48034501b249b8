"""Whole runs on real images with a frozen network small enough for a test."""

import csv
import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smm_lightning import train as entry
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.run.config import quoted
from smm_lightning.run.result import read_result
from smm_lightning.training import BestCheckpoint
from tests.dataset.test_dataset import write_images
from tests.faults import cut_after
from tests.programs import run_program

ROOT = Path(__file__).parent.parent
SMALL = ("backbone=tiny", "trainer=cpu", "dataset.train_images=200", "dataset.test_images=100")


def read_csv(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One run as a user would start it."""
    folder = tmp_path_factory.mktemp("run")
    done = run_program(*SMALL, "epochs=2", cwd=folder)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    return folder, run, done


def test_a_run_leaves_its_files(finished):
    _, run, _ = finished
    files = {path.name for path in run.iterdir()}
    assert {"result.json", "epochs.csv", "last.ckpt", "best.ckpt", ".hydra"} <= files
    rows = read_csv(run / "epochs.csv")
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"train/loss", "train/acc", "val/acc", "val/loss", "lr/pattern"} <= rows[0].keys()
    assert not any(name.startswith("test/") for name in rows[0])


def test_result_says_everything(finished):
    _, run, _ = finished
    result = read_result(run)
    assert result["run_key"] in run.name
    assert result["config"]["method"]["name"] == "smm"
    assert result["config"]["paths"]["run"] == f"runs/{run.name}"
    assert "???" not in json.dumps(result)
    assert result["params/mask_generator"] == 26_499
    assert result["params/pattern"] == 3 * 32 * 32
    assert result["params/trainable"] == 26_499 + 3 * 32 * 32
    assert result["best/selected_on"] == "val"
    assert result["test/acc_best_test"] is None
    assert result["val/acc"] == result["history"][-1]["val/acc"]
    assert [row["target"] for row in result["mapping"]] == [str(digit) for digit in range(10)]
    assert len({row["sources"][0]["index"] for row in result["mapping"]}) == 10
    assert result["environment"]["versions"]["torch"] == torch.__version__.split("+")[0]
    assert all(math.isfinite(value) for row in result["history"] for value in row.values())


def test_the_screen_says_what_counts(finished):
    _, run, done = finished
    assert "epoch 2/2  loss" in done.stdout
    assert "test accuracy" in done.stdout
    assert f"files         runs/{run.name}/: result.json" in done.stdout
    assert "_target_: smm_lightning.method.SampleSpecificMask" in done.stdout
    assert "Warning" not in done.stderr


def test_the_continue_command_continues(finished):
    folder, _, done = finished
    command = shlex.split(done.stdout.partition("continue      ")[2])
    assert command[:2] == ["python", str(ROOT / "train.py")]
    again = run_program(*command[2:], cwd=folder)
    assert again.returncode == 0, again.stderr
    assert "epoch 3/4" in again.stdout
    assert "epoch 2/4" not in again.stdout


def test_the_continue_command_can_be_pasted_whatever_the_root_is_called(tmp_path):
    root = "my runs, [1]=2 (it's {x}) ü"
    options = (*SMALL, "epochs=1", "method=full", "force=true", f"paths.root={quoted(root)}")
    done = run_program(*options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    command = done.stdout.partition("continue      ")[2].strip()
    again = subprocess.run(
        ["bash", "-c", command.replace("python ", f"{shlex.quote(sys.executable)} ", 1)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert "epoch 2/2" in again.stdout
    assert {path.name for path in tmp_path.iterdir()} == {root, "image_cache"}


@pytest.mark.parametrize(
    "text", ["a/b-c.d", "a b", "it's", "a\\", "a\\'b", "'", "x=1,y", "[1]", "{a: b}", "${seed}", ""]
)
def test_quoted_values_are_read_back(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([f"name={quoted(text)}"])
    assert override.value() == text


def test_a_checkpoint_that_leaves_nothing_to_train_is_refused(finished):
    """Else the run would train nothing and leave a finished result."""
    folder, run, _ = finished
    before = set((folder / "runs").iterdir())
    for epochs in (1, 2):
        options = (f"epochs={epochs}", f"ckpt_path={run}/last.ckpt")
        done = run_program(*SMALL, *options, cwd=folder)
        assert done.returncode == 2
        message = f"ckpt_path: the checkpoint has 2 epochs behind it, which leaves none of {epochs}"
        assert message in done.stderr
    assert set((folder / "runs").iterdir()) == before


def test_a_training_goes_on_under_other_rates_and_epochs(finished, composed):
    """The momenta are the checkpoint's; rates, schedule and options are this run's."""
    _, run, _ = finished
    changed = ("optimizer.groups.pattern.lr=0.5", "+optimizer.algorithm.betas=[0.8,0.9]")
    options = (*SMALL, "epochs=4", f"ckpt_path={run}/last.ckpt", *changed)
    result = entry.train(composed(*options, "scheduler=cosine"))
    rates = [row["lr/pattern"] for row in result["history"]]
    falling = 0.5 + 0.5 * math.cos(0.75 * math.pi)
    assert rates == pytest.approx([0.01, 0.0001, 0.25, 0.5 * falling])  # the first run's, and ours
    (folder,) = Path(result["config"]["paths"]["root"]).iterdir()
    saved = read_checkpoint(folder / "last.ckpt")["optimizer_states"][0]["param_groups"]
    assert {tuple(group["betas"]) for group in saved} == {(0.8, 0.9)}


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("optimizer=sgd", r"another optimizer.algorithm, .*got 'torch.optim.Adam'"),
        (
            "~scheduler +scheduler._target_=torch.optim.lr_scheduler.StepLR "
            "+scheduler._partial_=true +scheduler.step_size=1",
            r"another scheduler, .*got 'smm_lightning.training.Milestones'",
        ),
    ],
)
def test_a_state_of_another_optimizer_or_schedule_is_refused(finished, composed, override, line):
    from smm_lightning.errors import UserError

    _, run, _ = finished
    cfg = composed(*SMALL, "epochs=4", f"ckpt_path={run}/last.ckpt", *override.split())
    with pytest.raises(UserError, match=rf"ckpt_path: the checkpoint was trained with {line}"):
        entry.train(cfg)


def test_a_folder_of_another_configuration_is_refused(finished, composed, tmp_path):
    """``paths.run`` can name any folder; what lies there is neither mixed nor lost."""
    from smm_lightning.errors import UserError

    place = f"paths.run={tmp_path}/mine"
    first = entry.train(composed(*SMALL, "epochs=1", place))
    before = (tmp_path / "mine/result.json").read_bytes()
    with pytest.raises(UserError, match=r"paths.run: holds the run of another configuration"):
        entry.train(composed(*SMALL, "epochs=2", place))
    assert (tmp_path / "mine/result.json").read_bytes() == before
    assert entry.train(composed(*SMALL, "epochs=1", place)) == first
    entry.train(composed(*SMALL, "epochs=2", place, "trainer.fast_dev_run=true"))
    assert (tmp_path / "mine/result.json").read_bytes() == before
    done = run_program(*SMALL, "epochs=2", place, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: paths.run: holds the run of another configuration")
    assert not (tmp_path / "mine/.hydra").exists()
    again = entry.train(composed(*SMALL, "epochs=2", place, "force=true"))
    assert len(again["history"]) == 2


def test_a_checkpoint_of_another_configuration_is_not_gone_on_from(composed, tmp_path):
    """Where the files that say whose folder it is are gone."""
    from smm_lightning.errors import UserError

    place = f"paths.run={tmp_path}/mine"
    entry.train(composed(*SMALL, "epochs=2", place))
    (tmp_path / "mine/result.json").write_text("{")
    before = (tmp_path / "mine/last.ckpt").read_bytes()
    other = (*SMALL, "epochs=2", place, "optimizer.groups.pattern.lr=5")
    with pytest.raises(UserError, match=r"paths.run: holds the run of another configuration"):
        entry.train(composed(*other))
    assert (tmp_path / "mine/last.ckpt").read_bytes() == before
    history = entry.train(composed(*other, "force=true"))["history"]
    assert [row["lr/pattern"] for row in history] == pytest.approx([5, 0.05])


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("method.patch_size=4", "method.patch_size than this run's 4 (got 8)"),
        (
            "trainer.precision=bf16-mixed",
            "precision than this run's 'bf16-mixed' (got '32-true'). Use trainer.precision=32-true",
        ),
    ],
)
def test_a_checkpoint_of_other_fields_is_refused(composed, tmp_path, override, what):
    """Weights fit into another patch size, and mean nothing there."""
    from smm_lightning.errors import UserError

    smm = (*SMALL, "method=smm", "trainer.precision=32-true")
    entry.train(composed(*smm, "epochs=1", f"paths.run={tmp_path}/mine"))
    more = (*smm, "epochs=2", f"ckpt_path={tmp_path}/mine/last.ckpt", override)
    with pytest.raises(UserError) as error:
        entry.train(composed(*more))
    assert error.value.problems == [f"ckpt_path: the checkpoint has another {what}."]


def test_a_test_of_some_images_is_not_the_last_one(composed):
    some = ("epochs=2", "trainer.limit_val_batches=1", "dataset.evaluation_batch_size=10")
    whole, watched = (
        entry.train(composed(*SMALL, *some, f"dataset.observe_test={watch}"))
        for watch in ("false", "true")
    )
    assert watched["history"][-1]["test/loss"] != watched["test/loss_last"]
    names = ("test/loss_last", "test/acc_last", "test/acc_best_val", "test/acc_best_test")
    assert [watched[name] for name in names] == [whole[name] for name in names]
    published = entry.train(composed(*SMALL, *some, "protocol=published"))
    assert published["test/acc_best_test"] is None  # no epoch was tested as a whole
    assert published["best/selected_on"] is None


def test_the_continue_command_of_a_folder_of_ones_own_continues(tmp_path):
    done = run_program(*SMALL, "epochs=1", "paths.run=mine", cwd=tmp_path)
    command = shlex.split(done.stdout.partition("continue      ")[2])
    again = run_program(*command[2:], cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "epoch 2/2" in again.stdout


def test_a_checkpoint_of_weights_alone_cannot_be_gone_on_from(finished, composed, tmp_path):
    from smm_lightning.errors import UserError

    _, run, _ = finished
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    del checkpoint["loops"]
    torch.save(checkpoint, tmp_path / "weights.ckpt")
    with pytest.raises(UserError, match=r"weights.ckpt: has no loops, so no training"):
        entry.train(composed(*SMALL, "epochs=3", f"ckpt_path={tmp_path}/weights.ckpt"))


def test_a_finished_run_is_not_run_again(finished):
    folder, run, _ = finished
    before = {path: path.stat().st_mtime_ns for path in run.iterdir() if path.is_file()}
    done = run_program(*SMALL, "epochs=2", cwd=folder)
    assert done.returncode == 0
    assert "finished before" in done.stdout
    assert "test accuracy" in done.stdout
    for path, time in before.items():
        assert path.name == "train.log" or path.stat().st_mtime_ns == time


@pytest.mark.parametrize(
    "mapping", ["ilm", "ilm recipe=paper", "ilm recipe=paper mapping.refresh=running", "rlm"]
)
def test_an_interrupted_run_ends_bit_identical(composed, tmp_path, mapping, monkeypatch):
    """Killed after an epoch and continued from last.ckpt: the same prompt, mapping and history."""
    options = (*SMALL, "epochs=4", "dataset.augmentation=paper", *f"mapping={mapping}".split())
    whole = composed(*options)
    entry.train(whole)

    cut = composed(*options, f"paths.root={tmp_path}/cut")
    cut_after(cut, 1, monkeypatch)
    assert not (Path(cut.paths.run) / "result.json").exists()
    cut.ckpt_path = f"{cut.paths.run}/last.ckpt"
    entry.train(cut)

    one, other = (read_checkpoint(Path(c.paths.run) / "last.ckpt") for c in (whole, cut))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    histories = [
        [
            {k: v for k, v in row.items() if not k.startswith("time/")}
            for row in read_result(Path(c.paths.run))["history"]
        ]
        for c in (whole, cut)
    ]
    assert histories[0] == histories[1]
    assert [row["epoch"] for row in histories[0]] == [0, 1, 2, 3]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", [(0, 2), (1, 0), (1, 4), (1, 5)])
def test_a_resume_in_mid_epoch_sees_the_images_of_an_uninterrupted_run(
    composed, tmp_path, workers, cut
):
    """Saved after a step, the last of its epoch among them; every later step is compared."""
    import lightning as L

    from tests.assembled import assemble, trainer_of

    options = (*SMALL, "epochs=3", "dataset.augmentation=paper", "dataset.batch_size=40")
    options += (f"dataset.num_workers={workers}", "dataset.train_images=220", "callbacks=none")

    class Watch(L.Callback):
        def __init__(self, save=None):
            self.seen = {}
            self.save = save

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            self.seen[trainer.current_epoch, batch_idx] = (batch["index"], batch["image"].clone())

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if self.save == (trainer.current_epoch, batch_idx):
                trainer.save_checkpoint(tmp_path / "cut.ckpt")

    def run(save=None, checkpoint=None):
        cfg = composed(*options)
        parts, watch = assemble(cfg), Watch(save)
        trainer = trainer_of(cfg, [watch])
        trainer.fit(parts.module, datamodule=parts.data, ckpt_path=checkpoint)
        return watch.seen

    whole = run(save=cut)
    assert len(whole) == 18
    resumed = run(checkpoint=tmp_path / "cut.ckpt")
    assert list(resumed) == [step for step in whole if step > cut]
    for step, found in resumed.items():
        assert all(torch.equal(one, other) for one, other in zip(found, whole[step], strict=True))


@pytest.mark.parametrize(
    "options",
    [
        ("method=full",),
        ("method=full", "recipe=paper"),
        ("method=full", "recipe=paper", "mapping.refresh=running"),
        (
            *("method=full", "loss.class_weights=balanced", "loss.label_smoothing=0.1"),
            *("trainer.gradient_clip_val=0.01", "scheduler=cosine", "optimizer=sgd"),
        ),
        ("method=smm", "recipe=paper"),
    ],
    ids=" ".join,
)
def test_two_ranks_are_one(tmp_path, options):
    """Losses, mapping, accuracies and prompt, with a last step of five samples: three and two.

    SMM's first steps have gradients close to zero, whose rounding errors Adam scales up.
    """
    tolerance = 5e-4 if "method=smm" in options else 1e-5
    options = (*SMALL, *options, "dataset.train_images=205", "dataset.test_images=101", "epochs=2")
    options += ("dataset.batch_size=40", "trainer.precision=32-true")
    if "scheduler=cosine" not in options:
        options += ("scheduler.milestones=[1]",)
    ddp = ("trainer=ddp", "trainer.accelerator=cpu", "paths.root=two")
    done = [run_program(*options, cwd=tmp_path), run_program(*options, *ddp, cwd=tmp_path)]
    for program in done:
        assert program.returncode == 0, program.stderr
    folders = [next((tmp_path / root).iterdir()) for root in ("runs", "two")]
    one, two = (read_result(folder) for folder in folders)
    assert one["mapping"] == two["mapping"]
    assert one["temperature"] == pytest.approx(two["temperature"], rel=1e-5)
    for own, others in zip(one["history"], two["history"], strict=True):
        assert own["train/loss"] == pytest.approx(others["train/loss"], rel=tolerance)
        assert own["train/acc"] == pytest.approx(others["train/acc"], abs=10 * tolerance)
        assert own["val/acc"] == pytest.approx(others["val/acc"], abs=10 * tolerance)
    for name in ("test/acc_last", "test/acc_best_val"):
        assert one[name] == pytest.approx(two[name], abs=10 * tolerance)
    states = [read_checkpoint(folder / "last.ckpt")["state_dict"] for folder in folders]
    patterns = [state["classifier.input_transform.pattern"] for state in states]
    torch.testing.assert_close(*patterns, rtol=1e-3, atol=10 * tolerance)
    assert done[1].stdout.count("epoch 2/2") == 1


def test_one_class_too_many_and_one_image_broken(composed, tmp_path):
    from smm_lightning.errors import UserError

    root = tmp_path / "images"
    for split in ("train", "test"):
        write_images(root, split, classes=("a", "b", "c"))
    base = (
        "dataset=imagefolder",
        f"dataset.source.root={root}",
        "backbone=tiny",
        "trainer=cpu",
        "epochs=1",
        "dataset.batch_size=4",
    )
    with pytest.raises(UserError, match=r"3 target classes cannot each have one of 2"):
        entry.train(composed(*base, "backbone.classes=2"))
    result = entry.train(composed(*base))
    assert [row["target"] for row in result["mapping"]] == ["a", "b", "c"]
    (root / "train/b/1.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"imagefolder/train\[4\] .*1.png: is no readable image"):
        entry.train(composed(*base, "seed=1"))


def test_best_follows_val_where_there_is_one(composed, tmp_path):
    for split in ("train", "test", "val"):
        write_images(tmp_path / "images", split)
    cfg = composed(
        "dataset=imagefolder",
        f"dataset.source.root={tmp_path}/images",
        "backbone=tiny",
        "trainer=cpu",
        "epochs=2",
        "dataset.batch_size=2",
    )
    result = entry.train(cfg)
    assert result["best/selected_on"] == "val"
    assert result["val/acc"] == result["history"][-1]["val/acc"]


def test_epochs_without_a_test_have_no_test_accuracy(composed):
    result = entry.train(composed(*SMALL, "epochs=4", "trainer.check_val_every_n_epoch=2"))
    assert ["val/acc" in row for row in result["history"]] == [False, True, False, True]


def test_a_fast_run_writes_nothing(composed):
    cfg = composed(*SMALL, "debug=fdr")
    entry.train(cfg)
    assert not list(Path(cfg.paths.run).glob("*"))


def test_a_run_without_checkpoints_leaves_none_anywhere(composed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    entry.train(composed(*SMALL, "epochs=1", "callbacks=none"))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_csv_logger_keeps_the_rows_of_before_a_cut(composed, monkeypatch):
    cfg = composed(*SMALL, "epochs=3", "logger=csv")
    cut_after(cfg, 1, monkeypatch)
    entry.train(cfg)
    first, second = (
        read_csv(Path(cfg.paths.run) / f"csv/version_{number}/metrics.csv") for number in (0, 1)
    )
    assert [row["epoch"] for row in first if row.get("train/acc")] == ["0"]
    assert "2" in [row["epoch"] for row in second if row.get("train/acc")]
    assert any(row.get("test/acc") for row in second)


def test_the_best_epoch_moves_along_into_another_folder(tmp_path):
    first = BestCheckpoint(tmp_path / "first")
    first.best_model_path = first.kth_best_model_path = str(tmp_path / "first/best.ckpt")
    first.best_model_score = torch.tensor(0.5)
    first.best_k_models = {first.best_model_path: first.best_model_score}
    (tmp_path / "first").mkdir()
    (tmp_path / "first/best.ckpt").write_bytes(b"weights")

    second = BestCheckpoint(tmp_path / "second")
    second.load_state_dict(first.state_dict())
    moved = tmp_path / "second/best.ckpt"
    assert moved.read_bytes() == b"weights"
    assert second.best_k_models == {str(moved): torch.tensor(0.5)}
    assert second.best_model_path == second.kth_best_model_path == str(moved)
    assert (tmp_path / "first/best.ckpt").exists()

    fourth = BestCheckpoint(tmp_path / "fourth")  # a copied folder, whose own file may be older
    (tmp_path / "fourth").mkdir()
    (tmp_path / "fourth/best.ckpt").write_bytes(b"own")
    fourth.load_state_dict(first.state_dict())
    assert (tmp_path / "fourth/best.ckpt").read_bytes() == b"own"
    assert fourth.best_model_path == str(tmp_path / "fourth/best.ckpt")

    (tmp_path / "first/best.ckpt").unlink()
    third = BestCheckpoint(tmp_path / "third")
    third.load_state_dict(first.state_dict())
    assert third.best_model_path == ""
    assert third.best_k_models == {}


@pytest.mark.parametrize("folder", ["first", "second"])
def test_a_best_file_of_a_later_epoch_is_not_taken_for_that_of_the_checkpoint(tmp_path, folder):
    """Killed after the first test, whose best.ckpt is newer than the checkpoint in mid-epoch."""
    untested = BestCheckpoint(tmp_path / "first").state_dict()
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "best.ckpt").write_bytes(b"later")
    resumed = BestCheckpoint(tmp_path / folder)
    resumed.load_state_dict(untested)
    assert resumed.best_model_path == ""
    assert resumed.best_k_models == {}


def test_wandb_works_offline_without_a_key(tmp_path):
    """The run file is read back: the nested configuration and the plain summary are in it."""
    home = tmp_path / "home"
    home.mkdir()
    done = run_program(
        *SMALL,
        "epochs=1",
        "logger=wandb",
        cwd=tmp_path,
        HOME=str(home),
        WANDB_API_KEY="",
        WANDB_CACHE_DIR=str(home),
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"wandb: no key for https://\S+, logging offline", done.stdout)
    (run_file,) = tmp_path.rglob("run-*.wandb")
    content = run_file.read_bytes()
    for word in (
        b"test/acc_last",
        b"test/acc_best_val",
        b"best/epoch",
        b"time/epoch_s",
        b"patch_size",
    ):
        assert word in content, word


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.gpu
def test_a_run_on_a_gpu(composed):
    options = [option for option in SMALL if option != "trainer=cpu"]
    result = entry.train(composed(*options, "trainer=gpu", "epochs=1"))
    assert result["device"] != "cpu"
