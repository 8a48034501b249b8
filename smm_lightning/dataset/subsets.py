"""Stratified, seeded choices of samples."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Gt, Le
from numpy.typing import NDArray

from smm_lightning.errors import Problems, problem

Positions = NDArray[np.int64]
ImagesOrFraction = Annotated[float, Gt(0), Le(1e9)]  # below 1 a share


@dataclass(frozen=True)
class Subset:
    """Which samples of a split take part.

    Subsets of one seed are nested: a tenth of the images is among a fifth.

    Args:
        images: how many, or below 1 the share of all; ``None`` takes all.
        seed: which ones.
        field: name of the configuration field of ``images``, for messages.

    Raises:
        UserError: If a value is out of range.
    """

    images: float | None = None
    seed: int = 0
    field: str = "dataset.train_images"

    def __post_init__(self) -> None:
        count = self.images
        if count is not None and count >= 1 and count != int(count):
            raise problem(self.field, "must be a number of images, or a share below 1", count)

    @property
    def recipe(self) -> dict[str, Any]:
        """What decides about the choice, besides the labels."""
        return {} if self.images is None else {"images": self.images, "seed": self.seed}

    def of(self, labels: NDArray[np.int64]) -> Positions:
        """Positions of the chosen samples, ascending.

        Args:
            labels: (N,) class of every sample.

        Raises:
            UserError: If there are fewer samples than asked for, or fewer than one a class.
        """
        if self.images is None:
            return np.arange(len(labels))
        classes = len(np.unique(labels))
        count = round(self.images * len(labels)) if self.images < 1 else int(self.images)
        if not classes <= count <= len(labels):
            expected = f"must be between {classes} (one a class) and {len(labels)} (all)"
            raise problem(self.field, expected, self.images)
        return stratified(labels, count, self.seed)


def subsets_of(
    train_images: float | None, test_images: float | None, seed: int
) -> dict[str, Subset]:
    """Of every split; all of ``val``.

    Raises:
        UserError: A line for each value that is out of range.
    """
    problems, subsets = Problems(), {"val": Subset()}
    with problems.caught():
        subsets["train"] = Subset(train_images, seed)
    with problems.caught():
        subsets["test"] = Subset(test_images, seed, "dataset.test_images")
    problems.raise_if_any()
    return subsets


def stratified(labels: NDArray[np.int64], count: int, seed: int) -> Positions:
    """``count`` samples in the shares of their classes, one of each class first; nested by seed.

    With fewer samples than classes, the classes are drawn, too.

    Args:
        labels: (N,) class of every sample.
        count: at most N.
        seed: which ones.
    """
    rank, size = ranks(labels, seed)
    # The place within the class as a share of it: so every prefix of the order is stratified.
    order = np.argsort(np.where(rank == 0, -1, (rank + 0.5) / size), kind="stable")
    classes = int((rank == 0).sum())
    # Which classes come first is drawn, too, for fewer samples than classes.
    order[:classes] = np.random.default_rng(seed).permutation(order[:classes])
    return np.sort(order[:count])


def held_out(
    labels: NDArray[np.int64],
    fraction: float,
    seed: int,
    groups: NDArray[np.str_] | None = None,
    *,
    at_least: int = 1,
    leaving: int = 1,
) -> NDArray[np.bool_]:
    """Which samples are set aside: ``fraction`` of each class, rounded, and at least one.

    Args:
        labels: (N,) class of every sample.
        fraction: between 0 and 1.
        seed: which ones.
        groups: (N,) the object of every sample; then the share is one of objects, and
            those of one are set aside together.
        at_least: so many of each class.
        leaving: so many stay behind in each class, before all else.
    """
    if groups is None:
        rank, size = ranks(labels, seed)
        # Half a place further, so that shares are rounded and not cut.
        aside = ((rank + 0.5) / size < fraction) | (rank < at_least)
        return aside & (rank < size - leaving)
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    of_objects = held_out(labels[first], fraction, seed, at_least=at_least, leaving=leaving)
    return of_objects[member]


def ranks(labels: NDArray[np.int64], seed: int) -> tuple[Positions, Positions]:
    """For every sample its place in a random order of its class, and the size of the class."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - starts
    return rank, sizes[classes]
