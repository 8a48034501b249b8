import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smm_lightning.errors import UserError
from smm_lightning.method import (
    INTERPOLATIONS,
    FramePrompt,
    MaskGenerator,
    PadPrompt,
    SampleSpecificMask,
)
from tests.reference import equations

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def images(size, batch=2, seed=0):
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def randomized(module, seed=0):
    """Every parameter and statistic away from its start, so that nothing hides behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator) * 0.3
            value.copy_(noise.abs() + 0.5 if "var" in name else noise)
    return module.eval()


def reference_mask(prompt, normalized):
    """The twin's coarse mask, with the module's parameters."""
    blocks = []
    for block in prompt.mask_generator.blocks:
        conv, norm = block[0], block[1]
        values = (
            conv.weight,
            conv.bias,
            norm.weight,
            norm.bias,
            norm.running_mean,
            norm.running_var,
        )
        blocks.append([value.detach().numpy().astype(np.float64) for value in values])
    head = prompt.mask_generator.head
    head = None if head is None else (head.weight.detach().numpy(), head.bias.detach().numpy())
    poolings = prompt.patch_size.bit_length() - 1
    return equations.mask_generator(normalized.astype(np.float64), blocks, head, poolings)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 2**31))
def test_patchwise_equals_its_twin_for_every_size(size, patch, seed):
    if patch > size:
        return
    side = size // patch
    mask = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))
    out = INTERPOLATIONS["patchwise"](mask, size, patch)
    assert np.array_equal(out.numpy(), equations.patchwise(mask.numpy(), size, patch))


def test_patchwise_gradient_is_the_number_of_copies():
    mask = torch.zeros(1, 1, 2, 2, requires_grad=True)
    INTERPOLATIONS["patchwise"](mask, 10, 4).sum().backward()
    assert mask.grad[0, 0].tolist() == [[16.0, 24.0], [24.0, 36.0]]


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_smooth_interpolations_reach_the_size_and_keep_constants(name):
    out = INTERPOLATIONS[name](torch.full((1, 3, 3, 3), 2.0), 30, 8)
    assert out.shape == (1, 3, 30, 30)
    torch.testing.assert_close(out, torch.full_like(out, 2.0))


@pytest.mark.parametrize("share", [1 / 8, 1 / 4, 1 / 2])
@pytest.mark.parametrize("size", [16, 24, 33])
def test_frame_equals_its_twin(size, share):
    prompt = randomized(FramePrompt(size, MEAN, STD, frame=share))
    x = images(size)
    width = size if share == 0.5 else int(size * share)
    expected = equations.normalize(x.numpy(), MEAN, STD)
    expected = expected + prompt.pattern.detach().numpy() * equations.frame(size, width)
    np.testing.assert_allclose(prompt(x).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    assert prompt.mask(x).shape == (2, 3, size, size)


def test_paper_widths_at_224():
    for share, width in ((0.125, 28), (0.25, 56)):
        mask = FramePrompt(224, MEAN, STD, frame=share).frame_mask
        assert int(mask[0, 112].sum()) == 2 * width


@pytest.mark.parametrize(("native", "size"), [(7, 16), (8, 17), (15, 16)])
def test_pad_equals_its_twin(native, size):
    prompt = randomized(PadPrompt(size, MEAN, STD, native_size=native))
    x = images(native)
    expected = equations.pad(x.numpy(), prompt.pattern.detach().numpy(), size, MEAN, STD)
    np.testing.assert_allclose(prompt(x).detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert prompt.input_size == native
    assert not prompt.augmented


def test_pad_starts_as_a_mid_grey_border():
    prompt = PadPrompt(12, MEAN, STD, native_size=4)
    canvas = prompt.compose(images(4))
    assert canvas[0, 0, 0, 0] == 0.5
    torch.testing.assert_close(canvas[:, :, 4:8, 4:8], images(4))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "patch", "layers"), [(16, 8, 5), (22, 4, 3), (9, 1, 2)])
def test_smm_equals_its_twin(size, patch, layers, channels):
    prompt = randomized(
        SampleSpecificMask(
            size, MEAN, STD, patch_size=patch, layers=layers, width=4, channels=channels
        )
    )
    x = images(size)
    normalized = equations.normalize(x.numpy(), MEAN, STD)
    mask = equations.patchwise(reference_mask(prompt, normalized), size, patch)
    expected = normalized + prompt.pattern.detach().numpy() * mask
    np.testing.assert_allclose(prompt(x).detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        prompt.mask(x).detach().numpy(), np.broadcast_to(mask, expected.shape), rtol=1e-4, atol=1e-4
    )
    if channels == 1:
        assert prompt.mask(x).min() >= 0


def test_only_mask_equals_its_twin():
    prompt = randomized(
        SampleSpecificMask(16, MEAN, STD, patch_size=4, layers=3, learn_pattern=False)
    )
    x = images(16)
    normalized = equations.normalize(x.numpy(), MEAN, STD)
    expected = normalized + equations.patchwise(reference_mask(prompt, normalized), 16, 4)
    np.testing.assert_allclose(prompt(x).detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    assert set(prompt.parameter_groups()) == {"mask_generator"}


@settings(max_examples=20, deadline=None)
@given(st.integers(8, 40), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**31))
def test_smm_with_a_constant_mask_of_one_is_full(size, patch, seed):
    smm = randomized(SampleSpecificMask(size, MEAN, STD, patch_size=patch), seed)
    smm.mask_generator.head.weight.data.zero_()
    smm.mask_generator.head.bias.data.fill_(1)
    full = FramePrompt(size, MEAN, STD, frame=0.5)
    full.pattern.data.copy_(smm.pattern)
    x = images(size, seed=seed)
    torch.testing.assert_close(smm(x), full(x), rtol=0, atol=1e-6)


def test_smm_can_start_as_full():
    smm = SampleSpecificMask(24, MEAN, STD, start="full")
    full = FramePrompt(24, MEAN, STD, frame=0.5)
    full.pattern.data.normal_()
    smm.pattern.data.copy_(full.pattern)
    x = images(24)
    assert torch.equal(smm.mask(x), torch.ones_like(x))
    torch.testing.assert_close(smm(x), full(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{"learn_pattern": False}, {"channels": 1}])
def test_only_smm_with_three_channels_can_start_as_full(options):
    with pytest.raises(UserError, match=r"method.start: is the full prompt"):
        SampleSpecificMask(24, MEAN, STD, start="full", **options)


@settings(max_examples=20, deadline=None)
@given(st.integers(8, 40), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**31))
def test_smm_with_a_pattern_of_one_is_only_mask(size, patch, seed):
    smm = randomized(SampleSpecificMask(size, MEAN, STD, patch_size=patch), seed)
    smm.pattern.data.fill_(1)
    only = SampleSpecificMask(size, MEAN, STD, patch_size=patch, learn_pattern=False).eval()
    only.mask_generator.load_state_dict(smm.mask_generator.state_dict())
    x = images(size, seed=seed)
    torch.testing.assert_close(smm(x), only(x), rtol=0, atol=1e-6)


def test_the_first_step_moves_the_pattern_alone():
    prompt = SampleSpecificMask(16, MEAN, STD)
    prompt(images(16)).square().sum().backward()
    assert prompt.pattern.grad.abs().max() > 0
    assert all((p.grad == 0).all() for p in prompt.mask_generator.parameters())


@pytest.mark.parametrize(("layers", "count"), [(5, 26_499), (6, 102_339)])
def test_parameters_of_table_4(layers, count):
    assert sum(p.numel() for p in MaskGenerator(layers).parameters()) == count


@pytest.mark.parametrize(
    ("width", "count"),
    [(4, 7_203), (8, 26_499), (16, 101_379), (32, 396_291), (64, 1_566_723), (128, 6_230_019)],
)
def test_parameters_of_table_11(width, count):
    assert sum(p.numel() for p in MaskGenerator(width=width).parameters()) == count


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 3}, r"method.patch_size: must be a power of two \(got 3\). Use 1, 2"),
        ({"patch_size": 0}, r"method.patch_size: must be a power of two \(got 0\)"),
        ({"patch_size": 64}, r"method.patch_size: is larger than the input of 32 \(got 64\)"),
        (
            {"patch_size": 32},
            r"needs 5 poolings, and 5 layers allow at most 4 \(got 32\). "
            r"Use a patch size of at most 16, ",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        SampleSpecificMask(32, MEAN, STD, **arguments)


def test_a_frame_of_one_pixel_is_the_narrowest():
    assert FramePrompt(16, MEAN, STD, frame=1 / 16).frame_mask[0].sum() == 4 * 15


@pytest.mark.parametrize(
    ("name", "accesses"), [("patchwise", 150_528), ("bilinear", 602_112), ("bicubic", 2_408_448)]
)
def test_pixel_accesses_of_table_5(name, accesses):
    prompt = SampleSpecificMask(224, MEAN, STD, interpolation=name)
    assert prompt.facts() == {"method/pixel_accesses": accesses}


def test_a_frame_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"narrower than a pixel"):
        FramePrompt(32, MEAN, STD, frame=0.01)


@pytest.mark.parametrize("native", [32, 40])
def test_an_image_not_smaller_than_the_canvas_is_refused(native):
    with pytest.raises(UserError, match=f"dataset.native_size: .* input of 32 .got {native}"):
        PadPrompt(32, MEAN, STD, native_size=native)
