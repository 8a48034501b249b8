"""What dashboards get, read back from their files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wandb

from smm_lightning import train as entry
from smm_lightning.method.pictures import VIEWS
from smm_lightning.training.panels import mask_statistics, picture_rows
from tests.test_train import SMALL


def test_mask_statistics_of_each_channel():
    masks = np.zeros((2, 4, 4, 3), np.float32)
    masks[..., 1] = 2
    masks[0, ..., 2] = -1
    found = mask_statistics(masks)
    assert (found["mask/mean_red"], found["mask/near_zero_red"]) == (0, 1)
    assert (found["mask/mean_green"], found["mask/std_green"]) == (2, 0)
    assert (found["mask/mean_blue"], found["mask/near_zero_blue"]) == (-0.5, 0.5)


def test_rows_of_pictures_fit_together_for_smaller_images_too():
    found = {
        name: np.zeros((3, 8 if name == "image" else 20, 8 if name == "image" else 20, 3))
        for name in VIEWS
    }
    rows = picture_rows(found)
    assert list(rows) == ["masks", "masks_equalised"]
    assert {row.shape for row in rows["masks"]} == {(20, 80, 3)}


def test_an_offline_wandb_run_holds_everything(composed, tmp_path, monkeypatch):
    """Read back by wandb's own tool: curves, statistics, pictures, tables, group and names."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    options = [
        *SMALL,
        "epochs=3",
        "logger=wandb",
        "logger.wandb.mode=offline",
        "panels_every_n_epochs=2",
    ]
    cfg = composed(*options)
    entry.train(cfg)
    wandb.teardown()  # its server would serve the programs that later tests start
    (file,) = tmp_path.rglob("run-*.wandb")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--summary", "--json"]
    done = subprocess.run([*command, str(file.parent)], capture_output=True, text=True, check=True)
    content = json.loads(done.stdout)
    text = json.dumps(content)
    wanted = [
        "val/acc",
        "test/acc",
        "train/loss",
        "mapping/changed",
        "time/images_per_s",
        "lr/pattern",
    ]
    wanted += ["mask/mean_red", "mask/near_zero_blue", "pictures/masks", "mapping/table"]
    wanted += ["test/acc_last", "test/acc_best_val", "best/epoch", "confusion"]
    wanted += ["protocol", "test set", "train checksum"]  # of the card
    for word in wanted:
        assert f'"{word}' in text, word
    assert content["config"]["logger"]["wandb"]["group"] == "digits"
    assert content["config"]["logger"]["wandb"]["id"] == cfg.paths.run.rsplit("-", 1)[1]
    pictures = list(file.parent.rglob("masks_[0-9]*.png"))
    assert len(pictures) == 3 * 8  # after the first, the second and the last epoch; eight classes


def test_tensorboard_gets_the_same(composed, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    cfg = composed(*SMALL, "epochs=2", "logger=tensorboard", "method=pad", "dataset.native_size=16")
    entry.train(cfg)
    found = events.EventAccumulator(str(Path(cfg.paths.run) / "tensorboard"))
    found.Reload()
    tags = found.Tags()
    assert {"val/acc", "test/acc", "mask/mean_red", "time/images_per_s"} <= set(tags["scalars"])
    assert {"pictures/masks", "confusion"} <= set(tags["images"])


def test_a_logger_changes_no_result(composed, tmp_path):
    plain = entry.train(composed(*SMALL, "epochs=2"))
    logged = entry.train(composed(*SMALL, "epochs=2", "logger=csv", f"paths.root={tmp_path}/other"))
    assert plain["test/acc_last"] == logged["test/acc_last"]
    assert plain["train/loss_last"] == logged["train/loss_last"]


@pytest.mark.parametrize("chosen", [("csv", "tensorboard"), ("wandb", "csv")])
def test_loggers_combine(composed, tmp_path, monkeypatch, chosen):
    """Each gets everything that it can show, whatever their order."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    mode = ["logger.wandb.mode=offline"] if "wandb" in chosen else []
    cfg = composed(*SMALL, "epochs=2", f"logger=[{','.join(chosen)}]", *mode)
    entry.train(cfg)
    wandb.teardown()
    run = Path(cfg.paths.run)
    rows = (run / "csv/version_0/metrics.csv").read_text()
    assert {"test/acc", "time/images_per_s", "lr/pattern"} <= set(
        rows.partition("\n")[0].split(",")
    )
    if "tensorboard" in chosen:
        assert list((run / "tensorboard").glob("events*"))
    if "wandb" in chosen:
        assert len(list(run.rglob("masks_[0-9]*.png"))) == 2 * 8


def test_panels_without_their_logger_do_nothing(composed):
    panels = "+callbacks.panels._target_=smm_lightning.training.WandbPanels"
    cfg = composed(*SMALL, "epochs=1", panels)
    assert entry.train(cfg)["history"]
    assert not list(Path(cfg.paths.run).rglob("*.png"))


def test_a_logger_on_a_finished_run_is_told_that_it_gets_nothing(composed, capsys):
    entry.train(composed(*SMALL, "epochs=1"))
    entry.train(composed(*SMALL, "epochs=1", "logger=csv"))
    assert "logger=csv gets nothing of it; force=true logs it anew." in capsys.readouterr().out


def test_the_workspace_is_whole():
    pytest.importorskip("wandb_workspaces")
    from smm_lightning.training.dashboard import workspace

    text = workspace("team", "project")._to_model().model_dump_json(by_alias=True)
    for word in (
        "test/acc",
        "mask/mean_red",
        "pictures/masks",
        "mapping/changed",
        "method.value.name",
    ):
        assert word in text, word
    names = {
        section["name"]
        for section in json.loads(text)["spec"]["section"]["panelBankConfig"]["sections"]
    }
    assert names == {"Accuracy", "Masks", "Label mapping", "Speed"}
