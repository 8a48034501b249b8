"""Handwritten digits inside scikit-learn: the default, because they need no download."""

from collections.abc import Callable

import numpy as np
from typing_extensions import override

from smm_lightning.dataset.sources import Listing, Source
from smm_lightning.dataset.splits import ArraySplit, Splits


class Digits(Source):
    """1,797 handwritten digits of 8 x 8 pixels inside scikit-learn: 1,297 to train, 500 to test.

    The split is stratified and fixed. Source: UCI "Optical Recognition of Handwritten Digits".
    """

    name = "digits"
    image_size = 8
    _test_images = 500
    _brightest = 16

    @override
    def listings(self, load: Callable[[], Splits] | None = None) -> dict[str, Listing]:
        return {name: Listing(f"digits/{name}") for name in ("train", "test")}

    @override
    def load(self) -> Splits:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        digits = load_digits()
        images = np.rint(digits.images * (255 / self._brightest)).astype(np.uint8)
        train, test = train_test_split(
            np.arange(len(images)),
            test_size=self._test_images,
            stratify=digits.target,
            random_state=0,
        )
        # In the order of the file: a shuffled one would be part of the result.
        train, test = np.sort(train), np.sort(test)
        return Splits(
            train=ArraySplit("digits/train", images[train], digits.target[train]),
            test=ArraySplit("digits/test", images[test], digits.target[test]),
            val=None,
            class_names=[str(name) for name in digits.target_names],
        )
