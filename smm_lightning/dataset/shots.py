"""Few-shot draws: so many images of each class, as this project or CoOp's code draws them."""

import random
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from smm_lightning.dataset.subsets import Positions, ranks
from smm_lightning.errors import problem

Draw = Literal["nested", "coop"]
_VAL = 4  # images of val beside the shots, at most (CoOp)


@dataclass(frozen=True)
class Shots:
    """k training images of each class, and of ``val`` min(4, k) beside them.

    A class with fewer images of ``val`` gives all that it has; so do training images under
    ``coop``, as in CoOp.

    Source: Zhou et al., *Learning to Prompt for Vision-Language Models*, IJCV 2022; the code of
    its data sets (Dassl ``generate_fewshot_dataset``).

    Args:
        count: k.
        draw: ``nested``: 8 shots of a seed are among its 16; ``coop``: those of CoOp, whose
            generator draws class by class, in the order of the split file, first the training
            images of all classes and then those of ``val``.
        seed: of the draw.
    """

    count: int
    draw: Draw = "nested"
    seed: int = 0

    @property
    def of_val(self) -> int:
        """How many images of each class of ``val`` are drawn."""
        return min(_VAL, self.count)

    @property
    def recipe(self) -> dict[str, Any]:
        """What decides about the choice, besides the labels."""
        return {"shots": self.count, "draw": self.draw, "seed": self.seed}

    def train(self, labels: NDArray[np.int64]) -> Positions:
        """Positions of the training images that are drawn, ascending.

        Args:
            labels: (N,) class of every image.

        Raises:
            UserError: If a class has fewer than k images, under ``nested``.
        """
        if self.draw == "coop":
            return _drawn(random.Random(self.seed), labels, self.count)  # noqa: S311
        smallest = np.unique(labels, return_counts=True)[1].min()
        if self.count > smallest:
            what = f"the smallest class has {smallest} images"
            raise problem("dataset.shots", what, self.count)
        return _first(labels, self.count, self.seed)

    def val(self, labels: NDArray[np.int64], train_labels: NDArray[np.int64]) -> Positions:
        """Positions of the images of ``val`` that are drawn, ascending.

        Args:
            labels: (N,) class of every image of ``val``.
            train_labels: of the images that :meth:`train` draws from.
        """
        if self.draw == "nested":
            return _first(labels, self.of_val, self.seed)
        generator = random.Random(self.seed)  # noqa: S311 - as published
        _drawn(generator, train_labels, self.count)  # which is drawn before
        return _drawn(generator, labels, self.of_val)


def _first(labels: NDArray[np.int64], count: int, seed: int) -> Positions:
    rank, _ = ranks(labels, seed)
    return np.flatnonzero(rank < count)


def _drawn(generator: random.Random, labels: NDArray[np.int64], count: int) -> Positions:
    """Class by class, in the order of their first images."""
    chosen: list[int] = []
    for label in dict.fromkeys(labels.tolist()):
        members = np.flatnonzero(labels == label).tolist()
        chosen += generator.sample(members, count) if len(members) >= count else members
    return np.sort(np.array(chosen, dtype=np.int64))
