"""What a run takes as its images, what it leaves out, and what stands in two splits."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from smm_lightning.dataset.image_bank import ImageBank
from smm_lightning.dataset.splits import NO_OBJECT, Split, Splits

_NAMED = 3  # of the images that stand in two splits


@dataclass(frozen=True)
class Overlap:
    """Images that stand in two splits.

    Attributes:
        split: one of them.
        other: the other one.
        images: of ``split`` whose pixels are those of an image of ``other``.
        names: of the first of these, as ``split`` and ``other`` call them.
        objects: that images of both show, where images come in groups.
    """

    split: str
    other: str
    images: int
    names: tuple[tuple[str, str], ...]
    objects: int


def overlaps(
    banks: Mapping[str, ImageBank], load: Callable[[], Splits], origin: Callable[[str], str]
) -> list[Overlap]:
    """All pairs of splits that share images or objects.

    Args:
        banks: of the splits.
        load: the source's answer; asked only where names or groups are needed.
        origin: the split of the source from which a split comes.
    """
    found = []
    for name, other in itertools.combinations(banks, 2):
        one, two = banks[other], banks[name]  # test is named by what is in train
        shared = np.flatnonzero(np.isin(one.hashes, two.hashes))
        objects = 0
        if shared.size or one.has_groups:
            splits = load().parts()
            left, right = splits[origin(other)], splits[origin(name)]
            objects = len(_objects(left, one) & _objects(right, two))
        if shared.size or objects:
            names = tuple(_names(place, one, left, two, right) for place in shared[:_NAMED])
            found.append(Overlap(other, name, len(shared), names, objects))
    return found


def _objects(split: Split, bank: ImageBank) -> set[str]:
    groups = [] if split.groups is None else split.groups[bank.index].tolist()
    return {name for name in groups if not name.startswith(NO_OBJECT)}


def _names(
    place: int, one: ImageBank, left: Split, two: ImageBank, right: Split
) -> tuple[str, str]:
    twin = np.flatnonzero(two.hashes == one.hashes[place])[0]
    return left.name_of(int(one.index[place])), right.name_of(int(two.index[twin]))


def lines(images: Mapping[str, Mapping[str, Any]], found: list[Overlap]) -> list[str]:
    """An account for people, a line a topic.

    Args:
        images: see ``ImageDataModule.images``.
        found: what stands in two splits.
    """
    taken = ", ".join(
        f"{name} {facts['images']:,}"
        + (f" (from {facts['from']})" if facts["from"] != name else "")
        for name, facts in images.items()
    )
    text = [f"images        {taken}"]
    for name, facts in images.items():
        if facts["left out"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in facts["left out"].items())
            text.append(f"left out      {name}: {reasons}")
    for overlap in found:
        if overlap.images:
            pairs = ", ".join(f"{one} = {other}" for one, other in overlap.names)
            what = f"{overlap.images} images of {overlap.split} stand in {overlap.other}, too"
            text.append(f"warning       {what}: {pairs}")
        if overlap.objects:
            both = f"{overlap.split} and {overlap.other}"
            text.append(f"warning       {overlap.objects} objects have images in {both}")
    return text
