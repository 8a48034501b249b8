"""Habits of Lightning's users: each works, or is answered in a line."""

import json
import logging
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ProgressBar,
    StochasticWeightAveraging,
)

from smm_lightning.errors import UserError
from smm_lightning.train import train
from smm_lightning.training.trainer import make_trainer
from tests.programs import run_verb
from tests.test_plain_lightning import loader, module_of

OURS = "lightning.pytorch.callbacks"
SMALL = (
    *("backbone=tiny", "trainer=cpu", "dataset.train_images=60", "dataset.test_images=40"),
    *("dataset.batch_size=20", "threads=1"),
)


class Seen(Callback):
    """Notes what other tests ask of a training."""

    def __init__(self):
        Seen.batches, Seen.norms = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        Seen.batches.append((trainer.current_epoch, batch["index"].tolist(), batch["image"].sum()))

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        gradients = [w.grad.flatten() for w in weights if w.grad is not None]
        if gradients:
            Seen.norms.append(torch.cat(gradients).norm().item())


SEEN = f"+callbacks.seen._target_={__name__}.Seen"


def epochs_of(result):
    return [row["epoch"] for row in result["history"]]


def test_gradient_clipping(composed):
    train(composed(*SMALL, "epochs=1", SEEN))
    assert max(Seen.norms) > 1e-3
    train(composed(*SMALL, "epochs=1", SEEN, "trainer.gradient_clip_val=1e-3"))
    assert 0 < max(Seen.norms) < 1.001e-3


STOPS = (
    f"+callbacks.stop._target_={OURS}.EarlyStopping",
    *("+callbacks.stop.monitor=train/acc", "+callbacks.stop.mode=min"),
    *("+callbacks.stop.patience=2", "+callbacks.stop.min_delta=1"),
)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # without the callback
def test_early_stopping_stops_and_is_not_undone_by_a_cut(composed, capfd):
    cfg = composed(*SMALL, "epochs=9", *STOPS)
    result = train(cfg)
    assert epochs_of(result) == [0, 1, 2]  # the first, and two without a smaller one
    folder = Path(cfg.paths.run)
    (folder / "result.json").unlink()  # as if it was killed just before
    again = train(cfg)
    shown = capfd.readouterr().out
    assert "going on from" in shown
    assert "EarlyStopping had ended this training" in shown
    assert epochs_of(again) == [0, 1, 2]
    assert again["history"] == result["history"]
    assert again["test/acc_last"] == result["test/acc_last"]
    # Without the callback, a training may go on from there.
    more = train(composed(*SMALL, "epochs=4", f"ckpt_path={folder}/last.ckpt"))
    assert epochs_of(more) == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # without the timer
def test_a_training_that_ran_out_of_time_goes_on_beside_early_stopping(composed, tmp_path):
    patient = (*STOPS[:2], "+callbacks.stop.patience=99")
    short = composed(*SMALL, "epochs=9", *patient, "trainer.max_time=00:00:00:01", SLOW)
    first = train(short)
    assert 0 < len(first["history"]) < 9
    last = Path(short.paths.run) / "last.ckpt"
    more = train(composed(*SMALL, "epochs=9", *patient, f"ckpt_path={last}"))
    assert epochs_of(more) == list(range(9))


class Slow(Callback):
    def on_train_batch_start(self, *_):
        time.sleep(0.3)


SLOW = f"+callbacks.slow._target_={__name__}.Slow"


def test_early_stopping_on_an_unknown_metric_is_a_line(composed):
    unknown = (*STOPS[:1], "+callbacks.stop.monitor=val_loss")
    with pytest.raises(UserError, match=r"^callbacks: .*metric `val_loss` which is not av"):
        train(composed(*SMALL, "epochs=2", *unknown))


def test_overfit_batches_takes_the_same_batches_in_every_epoch(composed):
    result = train(composed(*SMALL, "epochs=3", SEEN, "+trainer.overfit_batches=2"))
    assert epochs_of(result) == [0, 1, 2]
    first, second, third = (
        [(index, pixels) for epoch, index, pixels in Seen.batches if epoch == number]
        for number in range(3)
    )
    assert len(first) == 2
    assert first == second == third
    train(composed(*SMALL, "epochs=2", SEEN))
    assert Seen.batches[0][1:] != Seen.batches[3][1:]


def test_fast_dev_run_writes_nothing(composed, tmp_path):
    train(composed(*SMALL, "trainer.fast_dev_run=true", f"paths.root={tmp_path}/none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("profiler", ["simple", "advanced", "pytorch"])
@pytest.mark.filterwarnings("ignore:The PyTorch Profiler default schedule")
@pytest.mark.filterwarnings("ignore:Profiler clears events")
def test_a_profiler_says_where_the_time_goes(composed, tmp_path, capfd, monkeypatch, profiler):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    cfg = composed(*SMALL, "epochs=1", f"trainer.profiler={profiler}")
    train(cfg)
    shown = capfd.readouterr().out
    assert shown.count("FIT Profiler Report") == 1
    assert "run_training_batch" in shown
    assert list(here.iterdir()) == []  # traces lie with the run
    assert (profiler == "pytorch") == bool(list(Path(cfg.paths.run).glob("*.pt.trace.json")))


@pytest.mark.parametrize(
    "callback",
    [
        "EMAWeightAveraging",
        "WeightAveraging",
        "StochasticWeightAveraging +callbacks.x.swa_lrs=0.1",
        "ModelPruning +callbacks.x.pruning_fn=l1_unstructured +callbacks.x.amount=0.5",
        "BackboneFinetuning",
        "GradientAccumulationScheduler +callbacks.x.scheduling={1:2}",
    ],
)
def test_callbacks_that_change_what_is_trained_are_answered(composed, callback):
    target, *fields = callback.split()
    with pytest.raises(UserError, match=r"^callbacks: changes batches, rates or weights"):
        train(composed(*SMALL, f"+callbacks.x._target_={OURS}.{target}", *fields))


def test_ema_of_lightning_in_a_trainer_of_ones_own(tmp_path):
    """The prompt is averaged, the counted mapping is the last."""
    torch.manual_seed(0)
    ema, module = EMAWeightAveraging(decay=0.5), module_of()
    trainer = quiet_trainer(tmp_path, ema, max_epochs=2)
    trainer.fit(module, loader(shuffle=True), loader())
    assert module.classifier.fitted
    assert trainer.callback_metrics["val/acc"] > 0.5


@pytest.mark.filterwarnings("ignore:You requested to overfit")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize(
    ("options", "epochs"),
    [
        ({"gradient_clip_val": 1.0}, 3),
        ({"accumulate_grad_batches": 2}, 3),
        ({"overfit_batches": 2}, 3),
        ({"fast_dev_run": 2}, 1),
        ({"profiler": "simple"}, 3),
        ({"max_steps": 5}, 2),
        ({"callbacks": [EarlyStopping("val/acc", mode="min", min_delta=1, patience=1)]}, 2),
    ],
)
def test_habits_in_a_trainer_of_ones_own(tmp_path, options, epochs):
    torch.manual_seed(0)
    module, callbacks = module_of(), options.get("callbacks", [])
    others = {name: value for name, value in options.items() if name != "callbacks"}
    trainer = quiet_trainer(tmp_path, *callbacks, max_epochs=3, **others)
    trainer.fit(module, loader(shuffle=True), loader())
    assert trainer.fit_loop.epoch_progress.current.started == epochs
    assert module.classifier.fitted
    assert 0 <= trainer.callback_metrics["val/acc"] <= 1
    assert module.classifier.input_transform.pattern.any()  # which began as zeros


@pytest.mark.filterwarnings("ignore:Swapping scheduler")
def test_swa_of_lightning_in_a_trainer_of_ones_own(tmp_path):
    torch.manual_seed(0)
    swa, module = StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=1), module_of()
    trainer = quiet_trainer(tmp_path, swa, max_epochs=3)
    trainer.fit(module, loader(), loader())
    assert trainer.validate(module, loader(), verbose=False)[0]["val/acc"] > 0.5


def quiet_trainer(folder, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    place = {"accelerator": "cpu", "default_root_dir": folder}
    return L.Trainer(callbacks=list(callbacks), **quiet, **place, **options)


def test_callbacks_and_loggers_of_ones_own_from_a_config_dir(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from pathlib import Path\n"
        "from lightning.pytorch.callbacks import Callback\n"
        "from lightning.pytorch.loggers import CSVLogger\n"
        "class Shout(Callback):\n"
        "    def on_train_end(self, trainer, pl_module): print('trained!', trainer.current_epoch)\n"
        "class Kept(CSVLogger):\n"
        "    pass\n"
    )
    conf = tmp_path / "conf"
    (conf / "callbacks").mkdir(parents=True)
    (conf / "callbacks/shout.yaml").write_text("shout:\n  _target_: mine.Shout\n")
    (conf / "logger").mkdir()
    (conf / "logger/kept.yaml").write_text("kept:\n  _target_: mine.Kept\n  save_dir: kept\n")
    words = ("callbacks=[default,shout]", "logger=[csv,kept]", "epochs=1")
    done = run_verb(
        *("train", "--config-dir", conf, *SMALL, *words), cwd=tmp_path, PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert "trained! 1" in done.stdout
    assert list((tmp_path / "kept").rglob("metrics.csv"))
    assert list((tmp_path / "runs").glob("*/last.ckpt"))


def test_in_a_notebook_there_is_a_bar_and_a_cell_run_twice_leaves_no_state(composed, monkeypatch):
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    trainer = make_trainer(callbacks=[], loggers=[], network_precision="32-true", accelerator="cpu")
    assert isinstance(trainer.progress_bar_callback, ProgressBar)
    cell = composed(*SMALL, "epochs=1", "force=true")
    shell.config.clear()  # IPython on a terminal, or imported by something else
    trainer = make_trainer(callbacks=[], loggers=[], network_precision="32-true", accelerator="cpu")
    assert trainer.progress_bar_callback is None
    before = state()
    first = train(cell)
    assert state() == before
    second = train(cell)
    assert state() == before
    assert json.dumps(first["mapping"]) == json.dumps(second["mapping"])
    assert first["test/acc_last"] == second["test/acc_last"]
    read = train(composed(*SMALL, "epochs=1"))  # and without force it is only read
    assert read["test/acc_last"] == first["test/acc_last"]


# Noted by pytest, by PyTorch when it first looks for devices, by scikit-learn when it is imported.
OF_OTHERS = (
    "PYTEST_CURRENT_TEST",
    *("TORCHINDUCTOR_CACHE_DIR", "PYTORCH_NVML_BASED_CUDA_CHECK"),
    *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"),
)


def state():
    """What a training may leave in a process that lives on."""
    signals = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    return {
        "environment": {k: v for k, v in os.environ.items() if k not in OF_OTHERS},
        "signals": signals,
        "threads": torch.get_num_threads(),
        "folder": Path.cwd(),
        "cudnn": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "gradients": torch.is_grad_enabled(),
        "precision": torch.get_float32_matmul_precision(),
        "warnings": list(warnings.filters),
        "level": logging.getLogger("lightning.pytorch").level,
    }


def test_a_progress_bar_of_ones_own_replaces_ours(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    from lightning.pytorch.callbacks import TQDMProgressBar

    own = TQDMProgressBar()
    options = {"loggers": [], "network_precision": "32-true", "accelerator": "cpu"}
    assert make_trainer(callbacks=[own], **options).progress_bar_callback is own
