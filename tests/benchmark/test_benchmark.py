"""That the benchmark measures what it says; never how fast anything is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from smm_lightning.benchmark import limit, training
from smm_lightning.benchmark.__main__ import main
from smm_lightning.benchmark.gpu_report import settings_on
from smm_lightning.benchmark.measure import middle
from smm_lightning.benchmark.report import lines
from smm_lightning.benchmark.setting import Setting, config_of
from smm_lightning.run.config import CONF
from smm_lightning.training.assembly import plan

TINY = ("--backbone", "tiny", "--train-images", "40", "--test-images", "20", "--steps", "2")

# A stand-in with the published code's files, names and order of work, but none of its lines.
PEER = {
    "cfg.py": "import os, torch\ndata_path = results_path = '/nowhere'\n"
    "def get_config(name):\n    return 5, 200, 0.01, 0.01, 0.1\n",
    "data/__init__.py": """
from torch.utils.data import DataLoader
from torchvision import datasets
IMAGENETNORMALIZE = None
def prepare_additive_data(dataset, data_path, preprocess, test_process=None, batch_size=256):
    sets = [datasets.CIFAR10(root=data_path, train=t, download=False, transform=preprocess)
            for t in (True, False)]
    loaders = [DataLoader(s, batch_size) for s in sets]
    return dict(zip(("train", "test"), loaders)), sets[1].classes
""",
    "labelmapping/__init__.py": "def generate_label_mapping_by_frequency(prompt, net, loader):\n"
    "    return [len(x) for x, y in loader]\n",
    "instancewise_vp.py": """
import argparse, sys
sys.path.append(".")
from torch.utils.tensorboard import SummaryWriter
from torchvision import transforms
from torchvision.models import resnet18, ResNet18_Weights
from data import prepare_additive_data
from labelmapping import generate_label_mapping_by_frequency
from cfg import *
if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--network"), parser.add_argument("--dataset")
    assert vars(parser.parse_args()) == {"network": "resnet18", "dataset": "cifar10"}
    loaders, names = prepare_additive_data("cifar10", data_path, transforms.ToTensor())
    network = resnet18(weights=ResNet18_Weights.IMAGENET1K_V1)
    log = SummaryWriter(results_path)
    for epoch in range(get_config("resnet18")[1]):
        assert generate_label_mapping_by_frequency(None, network, loaders["train"]) == [4, 4, 2]
        assert sum(len(x) for x, y in loaders["train"]) == 10
        log.add_scalar("x", 1, epoch)
        for x, y in loaders["test"]:
            assert x.shape[1:] == (3, 32, 32) and y.max() < len(names)
    open(results_path + "done", "w").write(f"{epoch}")
""",
}


def test_it_runs_without_wandb(tmp_path):
    (tmp_path / "wandb.py").write_text("raise ImportError('wandb is not installed')")
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "smm_lightning.benchmark", *TINY, "--json", str(report)]
    command += ["--repetitions", "1", "--device", "cpu", "--precision", "32-true"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    for words in ("as it comes", "+ folded", "Training steps over the limit", "peak memory"):
        assert words in done.stdout
    found = json.loads(report.read_text())
    assert found["machine"]["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["command"].endswith("--precision 32-true")
    (case,) = found["cases"].values()
    assert {part: len(runs) for part, runs in case.items()} == {"limit": 1, "training": 1}
    for run in case["training"]:
        parts = run["mapping_s"] + run["training_s"] + run["test_s"]
        assert run["epoch_s"] == pytest.approx(parts)
        assert min(run["mapping_s"], run["training_s"], run["test_s"], run["memory_mib"]) > 0


def test_the_published_code_is_driven_and_timed(tmp_path, monkeypatch, capsys):
    for name, text in PEER.items():
        path = tmp_path / "peer" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    given = {"train_images": 10, "test_images": 4, "batch": 4, "classes": 3, "epochs": 2}
    setting = {**given, "peer": str(tmp_path / "peer"), "work": str(tmp_path)}
    command = [sys.executable, "-m", "smm_lightning.benchmark", "--part", "published"]
    command += ["--given", json.dumps(setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (tmp_path / "done").read_text() == "1"
    parts = [result[f"{part}_s"] for part in ("mapping", "training", "test")]
    assert result["epoch_s"] == pytest.approx(sum(parts))
    assert min(parts) > 0
    assert result["images_per_s"] == pytest.approx(10 / result["training_s"])


@pytest.mark.slow  # nine processes
def test_the_report_of_a_card_runs_on_a_cpu_in_small(monkeypatch, capsys, tmp_path):
    words = ["benchmark", "--gpu-report", "--device", "cpu", "--repetitions", "1", "--json"]
    monkeypatch.setattr(sys, "argv", [*words, str(tmp_path / "all.json")])
    main()
    text = capsys.readouterr().out
    assert text.count("## ") == 3
    assert "Training steps over the limit" in text
    assert "## Micro-batches: tiny, batch 8" in text
    assert all(re.search(rf"^\| {size} \| [\d.]+ \| [\d.]+ \|$", text, re.M) for size in (8, 2, 1))
    assert re.search(r"^\| two at the same time \| [\d.]+ \|$", text, re.M)
    network, parts, two = json.loads((tmp_path / "all.json").read_text())
    assert network["setting"]["backbone"] == "tiny"
    assert set(parts["micro_batch"]) == {"8", "2", "1"}
    assert min(*two["two_runs"]["alone"], *two["two_runs"]["both"]) > 0


def test_on_a_card_the_networks_of_the_paper_are_measured():
    networks = [config_of(Setting(**each, accelerator="cuda")) for each in settings_on("cuda")]
    assert [one.backbone.name for one in networks][:3] == ["resnet18", "resnet50", "vit_b32"]
    assert all(one.dataset.batch_size >= 32 for one in networks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--backbone", "tiny"), "the published code has no tiny"),
        (("--method", "full"), "has only smm of width 8 at 224"),
        (("--size", "64"), "has only smm of width 8 at 224"),
        ((), "holds no instancewise_vp.py"),
    ],
)
def test_what_the_published_code_cannot_do_is_refused(arguments, message, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--peer", str(tmp_path), *arguments])
    with pytest.raises(SystemExit, match=message):
        main()


def test_what_cannot_be_varied_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["benchmark", "--vary", "colour", "1"])
    with pytest.raises(SystemExit, match=r"--vary: unknown \(got 'colour'\). Known: train_images"):
        main()


@pytest.mark.parametrize("method", sorted(p.stem for p in CONF.glob("method/*.yaml")))
def test_every_method_trains(method, tmp_path):
    setting = Setting(
        backbone="tiny", size=32, method=method, train_images=40, test_images=10, epochs=1,
        work=str(tmp_path), precision="32-true",
    )  # fmt: skip
    assert training.measure(setting)["images_per_s"] > 0
    data, _ = plan(config_of(setting)).carry_out()
    assert data.image_counts == {"train": 40, "test": 10}


def test_the_ceilings_count_what_a_network_needs():
    """Two passes over one convolution and one linear layer, counted by hand."""
    found = limit.ceilings(Setting(backbone="tiny", size=32, batch=2, steps=1, precision="32-true"))
    side = (32 - 5) // 4 + 1
    convolution = 2 * 8 * side * side * 3 * 5 * 5
    linear = 2 * 32 * 20
    assert found["gflop_per_image"] == pytest.approx(2 * (convolution + linear) / 1e9)
    assert found["gb_per_image"] > 2 * 3 * 32 * 32 * 4 / 1e9
    assert min(found["arithmetic_gflop_per_s"], found["bandwidth_gb_per_s"]) > 0


def test_the_table_is_made_of_medians_and_ratios():
    def run(speed, seconds):
        parts = {f"{part}_s": seconds / 4 for part in ("mapping", "training", "test")}
        return {"images_per_s": speed, "epoch_s": seconds, **parts, "memory_mib": 1000.0}

    ours = [{**run(s, 10.0), "precision": "32-true"} for s in (30.0, 90.0, 40.0)]
    limits = [{"images_per_s": 50.0, "candidates": {"as it comes": 25.0, "+ folded": 50.0}}]
    top = {"arithmetic_gflop_per_s": 500, "gflop_per_image": 5, "gb_per_image": 0.1}
    found = {
        "setting": {"backbone": "resnet18", "size": 224, "method": "smm", "batch": 32},
        "machine": {
            "cpu": "a CPU", "gpu": None, "threads": 2, "capability": "AVX2",
            "versions": {"torch": "2"},
        },
        "command": "python",
        "ceilings": [{**top, "bandwidth_gb_per_s": 20}],
        "cases": {"-": {"limit": limits, "training": ours, "published": [run(10.0, 45.0)]}},
    }  # fmt: skip
    text = "\n".join(lines(found))
    assert "| images/s in training steps | 40.0 (30.0-90.0) | 10.0 | 4.00 |" in text
    assert "| seconds an epoch | 10.0 (10.0-10.0) | 45.0 | 4.50 |" in text
    assert "Training steps over the limit: 0.80." in text
    assert "the limit is at 50% of the one and 25% of the other" in text


def test_medians_keep_three_digits():
    assert middle([1.234]) == "1.23"
    assert middle([12.34, 11.0, 13.0]) == "12.3 (11.0-13.0)"
    assert middle([1234.5]) == "1234"


def test_variation_runs_our_side_for_each_value(tmp_path, monkeypatch, capsys):
    report = tmp_path / "report.json"
    arguments = [*TINY, "--vary", "width", "4", "8", "--repetitions", "1", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments, "--json", str(report)])
    main()
    cases = json.loads(Path(report).read_text())["cases"]
    assert {name: list(parts) for name, parts in cases.items()} == {
        "width 4": ["training"],
        "width 8": ["training"],
    }
    assert "| width 4 | width 8 |" in capsys.readouterr().out
