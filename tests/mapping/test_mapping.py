import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smm_lightning.errors import UserError
from smm_lightning.mapping import OneToOneMapping, RandomMapping, add_pairs, greedy_one_to_one
from tests.reference import equations


def counted(predicted, targets, source_classes, classes):
    counts = torch.zeros(source_classes, classes, dtype=torch.int64)
    add_pairs(counts, predicted, targets)
    return counts


def refitted(mapping, counts):
    mapping.statistics = counts
    return mapping.refit()


@pytest.mark.parametrize("case", ["mapping_a", "mapping_ties", "mapping_big"])
def test_counts_and_mapping_equal_the_published_code(official, case):
    expected = official[f"{case}/counts"]
    predicted, targets = official[f"{case}/predicted_source"], official[f"{case}/target"]
    counts = counted(predicted, targets, *expected.shape)
    assert torch.equal(counts, expected)
    assert torch.equal(greedy_one_to_one(counts), official[f"{case}/mapping"])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 7), st.integers(0, 6), st.integers(0, 30), st.integers(0, 2**32 - 1))
def test_fast_equals_obvious_on_random_counts(classes, more, samples, seed):
    generator = np.random.default_rng(seed)
    source_classes = classes + more
    predicted = generator.integers(0, source_classes, samples)
    targets = generator.integers(0, classes, samples)
    counts = equations.counts(predicted, targets, source_classes, classes)
    ours = counted(torch.from_numpy(predicted), torch.from_numpy(targets), source_classes, classes)
    assert ours.dtype == torch.int64
    assert np.array_equal(ours.numpy(), counts)
    assert np.array_equal(greedy_one_to_one(ours).numpy(), equations.greedy(counts))


def test_a_class_without_samples_gets_the_lowest_free_source():
    counts = torch.zeros(5, 3, dtype=torch.int64)
    counts[0, 2] = 4
    assert greedy_one_to_one(counts).tolist() == [1, 2, 0]


def test_logits_are_those_of_the_mapped_sources():
    mapping = OneToOneMapping(6, 2, "epoch")
    counts = torch.zeros(6, 2, dtype=torch.int64)
    counts[4, 0] = counts[1, 1] = 1
    assert refitted(mapping, counts) == 2
    assert refitted(mapping, counts) == 0
    assert mapping.statistics is None
    logits = torch.arange(12.0).view(2, 6)
    assert mapping(logits).tolist() == [[4.0, 1.0], [10.0, 7.0]]
    rows = mapping.table(["x", "y"], list("abcdef"))
    assert rows == [
        {"target": "x", "sources": [{"index": 4, "name": "e", "weight": 1.0}]},
        {"target": "y", "sources": [{"index": 1, "name": "b", "weight": 1.0}]},
    ]


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_no_order_and_no_split_of_the_answers_changes_a_bit(parts):
    answers, targets = torch.randn(40, 9), torch.randint(0, 4, (40,))
    order = torch.randperm(40)
    found = []
    for chosen in (torch.arange(40), order):
        mapping = OneToOneMapping(9, 4, "epoch")
        mapping.reset()
        for part in chosen.chunk(parts):
            mapping.observe(answers[part], targets[part])
        assert mapping.statistics.dtype == torch.int64
        found.append(mapping.statistics.clone())
        mapping.refit(lambda statistics: 2 * statistics)  # as two ranks with the same images
        assert mapping.index.tolist() == greedy_one_to_one(2 * found[-1]).tolist()
    assert torch.equal(*found)


def test_random_mapping_is_injective_and_fixed_by_the_seed():
    first, again, other = (RandomMapping(1000, 397, seed) for seed in (3, 3, 4))
    assert torch.equal(first.index, again.index)
    assert not torch.equal(first.index, other.index)
    assert len(first.index.unique()) == 397


def test_more_targets_than_sources_are_refused():
    for build in (lambda: OneToOneMapping(3, 4, "once"), lambda: RandomMapping(3, 4, 0)):
        with pytest.raises(UserError, match=r"4 target classes cannot each have one of 3"):
            build()


def test_an_unfitted_mapping_is_never_used():
    mapping = OneToOneMapping(3, 2, "epoch")
    with pytest.raises(RuntimeError, match=r"before refit"):
        mapping(torch.zeros(1, 3))
    mapping.load_state_dict(OneToOneMapping(3, 2, "epoch").state_dict())
    with pytest.raises(RuntimeError, match=r"before refit"):
        mapping(torch.zeros(1, 3))


def test_state_comes_back_and_a_damaged_one_is_refused():
    mapping = OneToOneMapping(5, 2, "epoch")
    mapping.load_state_dict({"index": torch.tensor([4, 2])})
    assert mapping(torch.arange(5.0)[None]).tolist() == [[4.0, 2.0]]
    for index in ([-1, 2], [5, 2], [2, 2]):
        with pytest.raises(UserError, match=r"no choice of 2 different source classes below 5"):
            mapping.load_state_dict({"index": torch.tensor(index)})
