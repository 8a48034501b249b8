"""Which images of a source each split of a run has."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from smm_lightning.dataset.image_cache import VERSION
from smm_lightning.dataset.image_cache_builder import Content
from smm_lightning.dataset.shots import Shots
from smm_lightning.dataset.sources import Listing
from smm_lightning.dataset.splits import Split, Splits
from smm_lightning.dataset.subsets import Positions, Subset, held_out
from smm_lightning.errors import problem


@dataclass(frozen=True)
class Selection:
    """Which splits a run has, and what is in them.

    Args:
        subsets: of ``train``, ``test`` and ``val``.
        shots: instead of the subsets of ``train`` and ``val``, if there are any.
        val_fraction: see :class:`ImageDataModule`, as the following.
        use_val: likewise.
        subset_seed: likewise.
        sizes: side of the images in the caches, in pixels, by splits.
    """

    subsets: Mapping[str, Subset]
    shots: Shots | None
    val_fraction: float
    use_val: bool
    subset_seed: int
    sizes: Mapping[str, int]

    def splits(self, available: Collection[str]) -> list[str]:
        """Those of a run.

        Args:
            available: those of the source.
        """
        val = self._has_val(available) or self.val_fraction > 0
        return ["train", "test", *(["val"] if val else [])]

    def origin(self, name: str, available: Collection[str]) -> str:
        """The split of the source that the images of a split come from."""
        return "train" if self._is_part_of_train(name, available) else name

    def recipe(self, name: str, listings: Mapping[str, Listing]) -> dict[str, Any]:
        """What decides about the content of a split's cache."""
        origin = self.origin(name, listings)
        divided = self._is_part_of_train(name, listings)
        held = (self.val_fraction, self.subset_seed, *self._bounds)
        subset = self.subsets[name].recipe
        if self.shots is not None and name != "test":
            subset = {**self.shots.recipe, "of": listings["train"].stamp}
        return {
            "version": VERSION,
            "stamp": listings[origin].stamp,
            "part": [name, *held] if divided else origin,
            "subset": subset,
            "size": self.sizes[name],
        }

    def content(self, name: str, splits: Splits) -> Content:
        """What a split's cache is to hold.

        Raises:
            UserError: If it would be empty, or an image has no class.
        """
        parts = splits.parts()
        split = parts[self.origin(name, parts)]
        outside = (split.labels < 0) | (split.labels >= len(splits.class_names))
        if outside.any():
            wrong = sorted(set(split.labels[outside].tolist()))
            raise problem(split.name, "has labels without a class", wrong[:3])
        candidates = self._candidates(name, parts)
        if not len(split):
            raise problem(split.name, "has no images")
        if not len(candidates):
            what = f"leaves {name} without an image"
            hint = "dataset.val_fraction=0 trains without val."
            raise problem("dataset.val_fraction", what, self.val_fraction, hint)
        labels = split.labels[candidates]
        if self.shots is None or name == "test":
            positions = self.subsets[name].of(labels)
        elif name == "train":
            positions = self.shots.train(labels)
        else:
            of_train = parts["train"].labels[self._candidates("train", parts)]
            positions = self.shots.val(labels, of_train)
        return Content(split, candidates[positions], splits.class_names, self.sizes[name])

    def _candidates(self, name: str, parts: Mapping[str, Split]) -> Positions:
        """Positions, in the split that they come from, of all images that a split may have."""
        split = parts[self.origin(name, parts)]
        if not self._is_part_of_train(name, parts):
            return np.arange(len(split))
        at_least, leaving = self._bounds
        val = held_out(
            split.labels,
            self.val_fraction,
            self.subset_seed,
            split.groups,
            at_least=at_least,
            leaving=leaving,
        )
        return np.flatnonzero(val if name == "val" else ~val)

    @property
    def _bounds(self) -> tuple[int, int]:
        """How many of a class are held out at least, and how many stay in train at least."""
        return (1, 1) if self.shots is None else (self.shots.of_val, self.shots.count)

    def _has_val(self, available: Collection[str]) -> bool:
        return self.use_val and "val" in available

    def _is_part_of_train(self, name: str, available: Collection[str]) -> bool:
        """Whether ``val_fraction`` takes this split out of the training images, or leaves it."""
        return name != "test" and self.val_fraction > 0 and not self._has_val(available)
