import math

import pytest

from smm_lightning.training.diagnosis import Finding, diagnose

GUESS = math.log(10)


def history(accuracies, losses=None, changed=None):
    losses = losses or [1.0] * len(accuracies)
    changed = changed or [0.0] * len(accuracies)
    return [
        {"epoch": epoch, "train/acc": accuracy, "train/loss": loss, "mapping/changed": moved}
        for epoch, (accuracy, loss, moved) in enumerate(
            zip(accuracies, losses, changed, strict=True)
        )
    ]


def test_a_training_that_learns_is_well():
    assert diagnose(history([0.2, 0.6, 0.9, 0.9, 0.95], changed=[10, 9, 4, 3, 1]), 10) == []
    assert diagnose([], 10) == []


def test_a_collapse_is_two_epochs_of_guessing_after_better_ones():
    losses = [1.5, 1.4, GUESS + 0.09, GUESS - 0.09, GUESS]
    assert diagnose(history([0.4, 0.5, 0.29, 0.2, 0.1], losses), 10) == [
        Finding("collapse", 3, 0.2)
    ]


@pytest.mark.parametrize(
    ("accuracies", "losses"),
    [
        ([0.1, 0.1, 0.1, 0.1], [GUESS] * 4),  # it never was better
        ([0.5, 0.2, 0.5, 0.2], [1.4, GUESS, 1.4, GUESS]),  # it comes back
        ([0.5, 0.2, 0.2, 0.2], [1.4, 3.0, 3.0, 3.0]),  # wrong, but no guessing
        ([0.5, 0.4, 0.4, 0.4], [1.4, GUESS, GUESS, GUESS]),  # not so bad
    ],
)
def test_what_is_no_collapse(accuracies, losses):
    assert diagnose(history(accuracies, losses), 10) == []


def test_a_mapping_that_moves_late_is_found_once():
    moving = history([0.3] * 6, changed=[10, 9, 9, 3, 4, 5])
    assert diagnose(moving, 10) == [Finding("mapping", 4, 4)]
    assert diagnose(moving, 30) == []
    assert diagnose(moving[:4], 10) == []


def test_both_come_in_the_order_of_their_epochs():
    losses = [1.4, GUESS, GUESS, GUESS, GUESS]
    both = history([0.5, 0.1, 0.1, 0.1, 0.1], losses, changed=[10, 9, 9, 9, 9])
    assert [one.kind for one in diagnose(both, 10)] == ["collapse", "mapping"]
    for one in diagnose(both, 10):
        assert one.sentence().startswith(f"warning: epoch {one.epoch + 1}: ")
