"""What the history of a run says about a training that destroys what the classifier knows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Row = dict[str, float]  # an epoch: what was measured, by name
_FALLEN = 0.6  # of the best training accuracy so far
_OF_CHANCE = 0.1  # from the loss of guessing, ln T
_EPOCHS = 2  # in a row
_SETTLED = 3  # epochs, after which a mapping should hold still
_MANY = 1 / 3  # of the classes


@dataclass(frozen=True)
class Finding:
    """Something that went wrong.

    Attributes:
        kind: ``collapse``: the classifier only guesses now; ``mapping``: the target of the training
            keeps changing.
        epoch: in which it showed first, from 0.
        value: training accuracy there, or the number of classes that changed their source class.
    """

    kind: str
    epoch: int
    value: float

    def sentence(self) -> str:
        """For a person, with what helps."""
        where = f"warning: epoch {self.epoch + 1}: "
        if self.kind == "collapse":
            return (
                f"{where}training fell to guessing ({100 * self.value:.1f} %). "
                "recipe=steady and lower rates (recipe.lr) help; see docs/RESULTS.md."
            )
        return (
            f"{where}{self.value:g} classes still change their source class. "
            "recipe=steady holds them; see docs/RESULTS.md."
        )


def diagnose(history: Sequence[Row], classes: int) -> list[Finding]:
    """The first of each kind.

    Args:
        history: rows of :class:`EpochRecorder`.
        classes: T.
    """
    findings = [_collapse(history, classes), _moving_mapping(history, classes)]
    return sorted((one for one in findings if one), key=lambda one: one.epoch)


def _collapse(history: Sequence[Row], classes: int) -> Finding | None:
    best, guessing = 0.0, 0
    for row in history:
        accuracy = row.get("train/acc", 1.0)
        near = abs(row.get("train/loss", 0.0) - math.log(classes)) < _OF_CHANCE
        guessing = guessing + 1 if near and accuracy < _FALLEN * best else 0
        if guessing == _EPOCHS:
            return Finding("collapse", int(row["epoch"]), accuracy)
        best = max(best, accuracy)
    return None


def _moving_mapping(history: Sequence[Row], classes: int) -> Finding | None:
    for row in history:
        changed = row.get("mapping/changed", 0.0)
        if row["epoch"] >= _SETTLED and changed > _MANY * classes:
            return Finding("mapping", int(row["epoch"]), changed)
    return None
