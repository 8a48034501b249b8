"""What a prompt does to images, measured beside the training without touching it."""

import copy

import pytest
import torch

from smm_lightning import train as entry
from smm_lightning.method import FramePrompt, PadPrompt, SampleSpecificMask
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.training.prompt_recorder import effect
from tests.method.test_input_transforms import MEAN, STD, images, randomized
from tests.test_train import SMALL


def test_a_frame_adds_its_pattern_where_it_is():
    prompt = FramePrompt(64, MEAN, STD, frame=1 / 8)
    with torch.no_grad():
        prompt.pattern.fill_(0.3)
    found = effect(prompt, images(64))
    covered = 1 - (48 / 64) ** 2
    assert found["prompt/mask"].item() == pytest.approx(covered)
    assert found["prompt/distance"].item() == pytest.approx(0.3 * covered**0.5, rel=1e-5)


def test_a_pad_is_compared_with_the_image_that_fills_the_picture():
    prompt = PadPrompt(64, MEAN, STD, native_size=32)
    found = effect(prompt, images(32))
    assert found["prompt/mask"].item() == pytest.approx(0.75)
    with torch.no_grad():
        expected = (prompt(images(32)) - prompt.bare(images(32))).square().mean().sqrt()
    assert found["prompt/distance"].item() == pytest.approx(expected.item())
    assert found["prompt/distance"].item() > 0.3


def test_measuring_leaves_running_means_and_modes_alone():
    prompt = randomized(SampleSpecificMask(32, MEAN, STD)).train()
    before = copy.deepcopy(prompt.state_dict())
    found = effect(prompt, images(32))
    assert prompt.training
    assert all(module.training for module in prompt.modules())
    for name, value in prompt.state_dict().items():
        assert torch.equal(value, before[name]), name
    prompt.eval()
    with torch.no_grad():
        mask, added = prompt.mask(images(32)), prompt(images(32)) - prompt.bare(images(32))
    assert found["prompt/mask"].item() == pytest.approx(mask.abs().mean().item())
    assert found["prompt/distance"].item() == pytest.approx(added.square().mean().sqrt().item())


def test_every_epoch_has_its_numbers_and_the_training_does_not_notice(composed, tmp_path):
    watched = composed(*SMALL, "epochs=3")
    alone = composed(*SMALL, "epochs=3", "callbacks.prompt=null", f"paths.root={tmp_path}/alone")
    history = entry.train(watched)["history"]
    assert [round(row["epoch"]) for row in history if row["prompt/distance"] > 0] == [0, 1, 2]
    assert history[0]["prompt/distance"] < history[2]["prompt/distance"]
    assert "prompt/mask" not in entry.train(alone)["history"][-1]
    one, other = (
        read_checkpoint(tmp_path / root / watched.paths.run.rpartition("/")[2] / "last.ckpt")
        for root in ("runs", "alone")
    )
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
