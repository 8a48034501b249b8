"""Trained layers as mappings: on source logits and on features."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from smm_lightning.classifier import ReprogrammedClassifier
from smm_lightning.figures.trained import TrainedRun
from smm_lightning.mapping import FeatureHead, LinearMapping
from smm_lightning.report.runs import run_in
from smm_lightning.train import train
from tests.resume.continued import train_at_once_and_in_two
from tests.test_habits import SMALL


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_head_computes_in_float32_or_better(dtype):
    torch.manual_seed(0)
    head, source = LinearMapping(7, 3), torch.randn(5, 7)
    expected = head(source)
    assert torch.equal(expected, source @ head.layer.weight.T + head.layer.bias)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(source), expected)
    head.to(dtype)
    assert head.layer.weight.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(head(source.to(dtype)).float(), expected, rtol=0.02, atol=0.02)


def test_the_table_shows_weights_of_source_classes_and_of_features_none():
    head = LinearMapping(3, 2)
    with torch.no_grad():
        head.layer.weight.copy_(torch.tensor([[0.5, -1, 2.0], [0, 0, -1]]))
    rows = head.table(["x", "y"], list("abc"))
    assert [(s["name"], s["weight"]) for s in rows[0]["sources"]] == [("c", 2), ("a", 0.5)]
    assert rows[1]["sources"] == []
    assert FeatureHead(3, 2).table(["x", "y"], []) == [
        {"target": "x", "sources": []},
        {"target": "y", "sources": []},
    ]


@pytest.mark.parametrize(("mapping", "inputs"), [("linear", 20), ("fc", 32)])
def test_it_is_trained_saved_and_goes_on(composed, tmp_path, mapping, inputs):
    words = [*SMALL, f"mapping={mapping}", "scheduler=constant"]
    cfg, result, _ = train_at_once_and_in_two(composed, *words)
    assert cfg.optimizer.groups.mapping.lr == 0.1
    assert result["params/mapping"] == inputs * 10 + 10
    model = ReprogrammedClassifier.from_pretrained(cfg.paths.run)
    model.save_pretrained(tmp_path / "saved")
    again = ReprogrammedClassifier.from_pretrained(tmp_path / "saved", backbone=model.backbone)
    images = torch.rand(3, 3, 32, 32)
    assert torch.equal(again(images), model(images))


def test_first_weights_are_those_of_the_seed_and_of_pytorch():
    torch.manual_seed(0)
    first, second = LinearMapping(64, 50, seed=3), LinearMapping(64, 50, seed=3)
    assert torch.equal(first.layer.weight, second.layer.weight)
    assert not torch.equal(first.layer.weight, LinearMapping(64, 50, seed=4).layer.weight)
    theirs = torch.nn.Linear(64, 50)
    for ours, other in zip(first.layer.parameters(), theirs.parameters(), strict=True):
        assert ours.abs().max() <= 1 / 8
        assert ours.std().item() == pytest.approx(other.std().item(), rel=0.3)


def test_more_target_classes_than_source_classes_are_fine_for_a_head():
    assert LinearMapping(3, 9)(torch.randn(2, 3)).shape == (2, 9)


@pytest.mark.slow
def test_a_head_without_a_prompt_is_logistic_regression(composed):
    """On digits, with scikit-learn's on the same features of the frozen network."""
    words = ("method=none", "mapping=fc", "optimizer.groups.mapping.lr=0.001", "epochs=20")
    cfg = composed(*words, "backbone.image_size=64", "protocol=published")
    ours = train(cfg)["test/acc_last"]
    trained, features = TrainedRun(run_in(Path(cfg.paths.run))), {}
    for split in ("train", "test"):
        images, targets = trained.images(split, np.arange(len(trained.labels(split))))
        with torch.inference_mode():
            parts = [trained.classifier.source(some) for some in images.split(64)]
        features[split] = torch.cat(parts).numpy(), targets.numpy()
    theirs = LogisticRegression(max_iter=2000).fit(*features["train"]).score(*features["test"])
    assert ours == pytest.approx(theirs, abs=0.01)
