"""BLM and BLM+: the published vectors, a slow twin, and training with them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smm_lightning.errors import UserError
from smm_lightning.mapping import BayesianMapping
from tests.reference import equations
from tests.resume.continued import train_at_once_and_in_two
from tests.test_habits import SMALL


def fitted(logits, targets, classes, parts=1, **options):
    mapping = BayesianMapping(logits.shape[1], classes, **options)
    mapping.reset()
    for some, their in zip(logits.chunk(parts), targets.chunk(parts), strict=True):
        mapping.observe(some, their)
    mapping.refit()
    return mapping


@pytest.mark.parametrize("case", ["mapping_a", "mapping_ties"])
@pytest.mark.parametrize("plus", [False, True])
def test_weights_equal_the_published_code(official, case, plus):
    logits, targets = official[f"{case}/logits"], official[f"{case}/target"]
    expected = official[f"{case}/{'blmp' if plus else 'blm'}_weight"]
    top = int(official[f"{case}/blmp_k"]) if plus else None
    mapping = fitted(logits, targets, expected.shape[1], top=top)
    torch.testing.assert_close(mapping.weight, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mapping(logits), logits @ expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 8),
    st.integers(1, 9),
    st.integers(0, 30),
    st.sampled_from([None, 1, "auto", "all"]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_fast_equals_obvious_also_with_ties_and_absent_classes(
    sources, classes, samples, top, ties, seed
):
    """More target than source classes, too, and less than seven: published code gives NaN."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(samples, sources)).astype(np.float32)
    logits = logits.round() if ties else logits
    targets = generator.integers(0, classes, samples)
    number = {"auto": max(1, int(0.15 * classes)), "all": sources}.get(top, top)
    mapping = BayesianMapping(sources, classes, top=sources if top == "all" else top)
    mapping.reset()
    mapping.observe(torch.from_numpy(logits), torch.from_numpy(targets))
    mapping.refit()
    expected = equations.bayesian_mapping(logits, targets, classes, top=number)
    np.testing.assert_allclose(mapping.weight.numpy(), expected, atol=1e-5)
    assert mapping(torch.from_numpy(logits)).isfinite().all()


@pytest.mark.parametrize("top", [None, 3])
def test_no_order_and_no_split_changes_a_bit(top):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200, 11, generator=generator)
    targets = torch.randint(0, 5, (200,), generator=generator)
    once = fitted(logits, targets, 5, top=top)
    order = torch.randperm(200, generator=generator)
    for parts in (1, 3, 7):
        again = fitted(logits[order], targets[order], 5, parts=parts, top=top)
        assert torch.equal(again.weight, once.weight)
    halves = [slice(0, 90), slice(90, None)]  # of two ranks, whose sums are added
    sums = []
    for half in halves:
        mapping = BayesianMapping(11, 5, top=top)
        mapping.reset()
        mapping.observe(logits[half], targets[half])
        sums.append(mapping.statistics)
    mapping.refit(lambda mine: mine + sums[0])
    assert torch.equal(mapping.weight, once.weight)


def test_the_table_names_the_heaviest_sources():
    logits = torch.zeros(6, 8)
    for sample, source in enumerate([3, 3, 3, 5, 1, 1]):
        logits[sample, source] = 9
    mapping = fitted(logits, torch.tensor([0, 0, 0, 0, 1, 1]), 2)
    first, second = mapping.table(["x", "y"], list("abcdefgh"))
    assert [source["name"] for source in first["sources"]] == ["d", "f"]
    assert first["sources"][0]["weight"] == pytest.approx(0.75 / 1.25)
    assert [source["weight"] for source in second["sources"]] == [1]
    assert mapping.dense().sum(0).tolist() == pytest.approx([1, 1])


def test_how_much_moved_is_the_sum_of_weights():
    logits = torch.eye(4)
    mapping = fitted(logits, torch.arange(4), 4)
    mapping.reset()
    mapping.observe(logits, torch.tensor([0, 1, 3, 2]))  # two classes change their source
    assert mapping.refit() == pytest.approx(2)


def test_what_is_not_fitted_or_no_probability_is_answered():
    mapping = BayesianMapping(6, 2)
    assert not mapping.fitted
    with pytest.raises(RuntimeError, match="used before refit"):
        mapping(torch.zeros(1, 6))
    with pytest.raises(UserError, match=r"mapping.top: is more than the 6 source classes"):
        BayesianMapping(6, 2, top=7)
    good = torch.tensor([[1.0, 0], [0, 0.5], [0, 0.5], [0, 0], [0, 0], [0, 0]])
    mapping.load_state_dict({"weight": good})
    assert mapping.fitted
    for bad in (-good, 2 * good, good / 2, good + float("nan")):
        with pytest.raises(UserError, match=r"^weight: the checkpoint's label mapping holds no"):
            mapping.load_state_dict({"weight": bad})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_stay_in_float32_under_every_precision(dtype):
    logits, targets = torch.randn(50, 9), torch.arange(50) % 3
    mapping = fitted(logits, targets, 3)
    expected = mapping(logits)
    mapping.to(dtype)
    assert mapping.weight.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mapping(logits), expected)


@pytest.mark.parametrize("mapping", ["blm", "blm_plus"])
@pytest.mark.parametrize("refresh", ["epoch", "running"])
def test_a_training_goes_on_with_the_same_bits(composed, mapping, refresh):
    words = [*SMALL, f"mapping={mapping}", f"mapping.refresh={refresh}", "scheduler=constant"]
    words += ["mapping.refit_until=null"]
    train_at_once_and_in_two(composed, *words)
