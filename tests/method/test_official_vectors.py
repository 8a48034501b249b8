"""The published modules' own numbers, reproduced by our classes."""

import pytest
import torch

from smm_lightning.method import FramePrompt, PadPrompt
from tests.method.published import IDENTITY, published_prompt

CASES = (
    "smm_l5_p8_c3",
    "smm_l6_p16_c3",
    "smm_l5_p8_c1",
    "smm_l5_p1_c3",
    "smm_l5_p16_c3",
    "smm_l6_p8_c3",
)


def test_every_case_of_the_file_is_tested(official):
    found = {name.split("/")[0] for name in official if name.startswith("smm_")}
    assert found == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_equal_the_published_module(official, case):
    prompt = published_prompt(official, case).train()
    out = prompt(official[f"{case}/x"])
    torch.testing.assert_close(out, official[f"{case}/out_train"], rtol=1e-5, atol=1e-5)
    (out * official[f"{case}/w"]).sum().backward()
    torch.testing.assert_close(
        prompt.pattern.grad, official[f"{case}/grad_delta"], rtol=1e-4, atol=1e-5
    )
    gradient = prompt.mask_generator.blocks[0][0].weight.grad
    torch.testing.assert_close(gradient, official[f"{case}/grad_conv1"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_eval_mode_equals_the_published_module(official, case):
    # The file's running statistics are those after its train-mode forward.
    prompt = published_prompt(official, case).eval()
    with torch.no_grad():
        out, coarse = (f(official[f"{case}/x"]) for f in (prompt, prompt.mask_generator))
    torch.testing.assert_close(out, official[f"{case}/out_eval"], rtol=1e-5, atol=1e-6)
    expected = official[f"{case}/mask_eval"].view_as(coarse)
    torch.testing.assert_close(coarse, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_running_statistics_after_one_forward_equal_the_published_module(official, case):
    prompt = published_prompt(official, case).train()
    norms = [block[1] for block in prompt.mask_generator.blocks]
    expected = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    prompt(official[f"{case}/x"])
    for norm, (mean, var) in zip(norms, expected, strict=True):
        torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norm.running_var, var, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_parameter_count_equals_the_published_module(official, case):
    prompt = published_prompt(official, case)
    generator = prompt.parameter_groups()["mask_generator"]
    assert sum(weight.numel() for weight in generator) == official[f"{case}/num_params"]


def test_pad_equals_the_published_module(official):
    case = "pad_17_to_48"
    prompt = PadPrompt(48, **IDENTITY, native_size=17)
    assert torch.equal(prompt.border_mask, official[f"{case}/mask"])
    left, right = official[f"{case}/l_pad_r_pad"].tolist()
    assert prompt.padding == (left, right, left, right)
    prompt.load_state_dict({"pattern": official[f"{case}/program"]})
    out = prompt.compose(official[f"{case}/x"])
    torch.testing.assert_close(out, official[f"{case}/out_before_normalize"], rtol=0, atol=1e-6)
    (out * official[f"{case}/w"]).sum().backward()
    torch.testing.assert_close(
        prompt.pattern.grad, official[f"{case}/grad_program"], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("name", "share"), [("narrow", 1 / 8), ("medium", 1 / 4), ("full", 1 / 2)])
def test_frames_equal_the_published_masks(official, name, share):
    prompt = FramePrompt(56, **IDENTITY, frame=share)
    assert torch.equal(prompt.frame_mask, official[f"watermark_56/{name}_mask"])
