"""What is part of a run's key, and what is not."""

import importlib

import pytest

from smm_lightning import train as entry
from smm_lightning.errors import UserError
from smm_lightning.report.runs import Run
from smm_lightning.run.identity import identity, run_name
from smm_lightning.run.result import read_result
from tests.assembled import trainer_of
from tests.test_train import SMALL


def test_run_name_follows_what_decides_about_the_result(composed):
    cfg = composed()
    name = run_name(cfg)
    assert name.startswith("digits-smm-efficientnet_lite0-ilm-s0-")
    for same in (
        *("trainer=cpu", "logger=csv", "dataset.num_workers=2", "force=true", "threads=1"),
        *("compiled=true", "fused_attention=false", "backbone.folded=false"),
        *("backbone.channels_last=false", "backbone.fast_stem=false"),
        *("dataset.evaluation_batch_size=7", "trainer.devices=2", "trainer.strategy=ddp"),
        *("tags=[a]", "notes=b", "+vars.mine=3", "trainer.profiler=simple", "paths.data=/else"),
        "method.layers=5",  # what is compared are values, not how they came about
    ):
        assert run_name(composed(same)) == name, same
    for other in (
        "seed=1",
        "method=full",
        "epochs=3",
        "optimizer.groups.pattern.lr=0.1",
        "mapping=flm",
        "ckpt_path=x",
        "trainer.precision=64-true",
        "optimizer.groups.mask_generator.lr=0.1",
        "+something.new=1",
        "trainer.gradient_clip_val=1",
        "scheduler=cosine",
        "scheduler.warmup_epochs=1",
        "loss.label_smoothing=0.1",
        "optimizer=adamw",
    ):
        assert run_name(composed(other)) != name, other
    assert cfg.paths.run.endswith(name)


def test_rates_of_what_a_method_has_not_are_no_part_of_its_key(composed):
    def same(method, *overrides):
        return run_name(composed(method, *overrides)) == run_name(composed(method))

    for method in ("pad", "narrow", "medium", "full"):
        assert same(f"method={method}", "optimizer.groups.mask_generator.lr=0.1")
        assert not same(f"method={method}", "optimizer.groups.pattern.lr=0.1")
    assert same("method=only_mask", "optimizer.groups.pattern.lr=0.1")
    assert not same("method=only_mask", "optimizer.groups.mask_generator.lr_decay=0.5")


def test_variables_that_change_the_trainer_unseen_are_refused(composed, monkeypatch):
    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "3")
    with pytest.raises(UserError, match=r"PL_TRAINER_MAX_EPOCHS: changes the trainer unseen .got"):
        trainer_of(composed("backbone=tiny"))


def callback(target, name="more"):
    return f"+callbacks.{name}._target_={target}"


LIGHTNINGS = "lightning.pytorch.callbacks"


@pytest.mark.parametrize(
    "override",
    [
        "callbacks=none",
        "callbacks.last.every_n_steps=3",
        callback("smm_lightning.training.WandbPanels"),
        callback(f"{LIGHTNINGS}.LearningRateMonitor"),
        callback(f"{LIGHTNINGS}.model_summary.ModelSummary"),
    ],
)
def test_callbacks_that_watch_are_no_part_of_the_run_key(composed, override):
    assert run_name(composed(override)) == run_name(composed())


@pytest.mark.parametrize(
    "target",
    [
        *(f"{LIGHTNINGS}.{name}" for name in ("EarlyStopping", "Timer", "WeightAveraging")),
        f"{LIGHTNINGS}.StochasticWeightAveraging",
        "my_package.MyCallback",
        "elsewhere.LastCheckpoint",
    ],
)
def test_callbacks_that_may_act_on_training_are_part_of_the_run_key(composed, target):
    found = composed(callback(target))
    assert run_name(found) != run_name(composed())
    other_setting = composed(callback(target), "+callbacks.more.patience=3")
    assert run_name(other_setting) != run_name(found)


def test_every_callback_that_is_said_to_watch_exists():
    from smm_lightning.run.identity import _WATCHING

    for package, names in _WATCHING.items():
        for name in names:
            assert hasattr(importlib.import_module(package.rstrip(".")), name), name


def test_reports_compare_what_the_key_is_made_of(composed):
    cfg = composed(*SMALL, "epochs=1", "optimizer.groups.pattern.lr=0.02")
    result = entry.train(cfg)
    assert result["identity"] == identity(cfg)
    protocol = Run(None, {}, result).protocol()
    assert protocol["optimizer.groups.pattern.lr"] == "0.02"
    assert not any(field.startswith(("paths", "logger", "trainer.devices")) for field in protocol)


def test_results_of_older_versions_are_still_read(composed):
    """They have no identity: what decides is taken out of their configuration."""
    result = entry.train(composed(*SMALL, "epochs=1"))
    older = {name: value for name, value in result.items() if name != "identity"}
    older["config"] = {**older["config"], "optimizer": {"pattern": {"lr": 0.01, "decay": 0.1}}}
    protocol = Run(None, {}, older).protocol()
    assert protocol["method.patch_size"] == "8"


def test_where_the_files_lie_is_left_open(composed, tmp_path):
    one = composed("dataset=cifar10", "paths.data=/a")
    other = composed("dataset=cifar10", "paths.data=/b", f"paths.image_cache={tmp_path}/elsewhere")
    assert identity(one) == identity(other)
    assert identity(one)["dataset"]["source"]["root"] == "<paths.data>"
    own = "dataset.source.root="
    folders = [composed("dataset=imagefolder", own + folder) for folder in ("/a", "/b")]
    assert run_name(folders[0]) != run_name(folders[1])


def test_a_finished_run_carries_its_key(composed, tmp_path):
    cfg = composed(*SMALL, "epochs=1")
    entry.train(cfg)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == run_name(cfg)
    assert read_result(folder, folder.name.rpartition("-")[2]) is not None
