"""What a run takes as its images, what it leaves out, and what stands in two splits."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from smm_lightning.dataset.image_cache import ImageCache
from smm_lightning.dataset.sources import Listing
from smm_lightning.dataset.splits import Split
from smm_lightning.dataset.subsets import Positions

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


def of_split(name: str, cache: ImageCache, listing: Listing) -> dict[str, Any]:
    """What the images of a split are, for ``result.json`` and checkpoints."""
    absent = np.setdiff1d(np.arange(len(cache.class_names)), cache.labels)
    return {
        "images": len(cache),
        "digest": cache.digest,
        "stamp": listing.stamp,
        "from": listing.folder or name,
        "left out": dict(listing.left_out),
        "without": [cache.class_names[label] for label in absent],
    }


def overlaps(caches: Mapping[str, ImageCache], splits: Mapping[str, Split | None]) -> list[Overlap]:
    """All pairs of splits that share images or objects.

    Args:
        caches: of the splits.
        splits: of the source, that these come from; ``None`` where images have no names.
    """
    overlapping = []
    for name, other in itertools.combinations(caches, 2):
        one, two = caches[other], caches[name]  # test is named by what is in train
        left, right = splits[other], splits[name]
        shared, twins = twins_of(one, two)
        objects = len(_objects(left, one) & _objects(right, two))
        if shared.size or objects:
            places = zip(shared[:_NAMED], twins[:_NAMED], strict=True)
            names = tuple((name_of(left, one, a), name_of(right, two, b)) for a, b in places)
            overlapping.append(Overlap(other, name, len(shared), names, objects))
    return overlapping


def _objects(split: Split | None, cache: ImageCache) -> set[str]:
    return set() if split is None else split.objects(cache.index)


def twins_of(one: ImageCache, two: ImageCache) -> tuple[Positions, Positions]:
    """Positions of images of ``one`` that stand in ``two``, too, by their pixels, and there."""
    shared = np.flatnonzero(np.isin(one.hashes, two.hashes))
    order = np.argsort(two.hashes, kind="stable")
    first = np.searchsorted(two.hashes, one.hashes[shared], sorter=order)
    return shared, order[first]


def name_of(split: Split | None, cache: ImageCache, position: int) -> str:
    """Of an image, for people: what is no valid text in a file's name is replaced."""
    number = int(cache.index[position])
    name = str(number) if split is None else split.name_of(number)
    return name.encode(errors="surrogateescape").decode(errors="replace")


def lines(images: Mapping[str, Mapping[str, Any]], overlapping: list[Overlap]) -> list[str]:
    """An account for people, a line a topic.

    Args:
        images: see ``ImageDataModule.images``.
        overlapping: what stands in two splits.
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
        if facts["without"]:
            text.append(f"warning       {name} has no images of {', '.join(facts['without'])}")
    for overlap in overlapping:
        if overlap.images:
            pairs = ", ".join(f"{one} = {other}" for one, other in overlap.names)
            what = f"{overlap.images} images of {overlap.split} stand in {overlap.other}, too"
            text.append(f"warning       {what}: {pairs}")
        if overlap.objects:
            both = f"{overlap.split} and {overlap.other}"
            text.append(f"warning       {overlap.objects} objects have images in {both}")
    return text
