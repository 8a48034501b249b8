"""From a source to the images of a run's splits: caches, opened or built first."""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from smm_lightning.dataset import account
from smm_lightning.dataset.image_cache import ImageCache
from smm_lightning.dataset.image_cache_builder import Content, open_or_build
from smm_lightning.dataset.selection import Selection
from smm_lightning.dataset.sources import Listing, Source
from smm_lightning.errors import Problems


@dataclass(frozen=True)
class OpenSplits:
    """The images of a run.

    Attributes:
        caches: by splits.
        listings: of the splits of the source that they come from, likewise.
        overlaps: what stands in two of them.
    """

    caches: Mapping[str, ImageCache] = field(default_factory=dict)
    listings: Mapping[str, Listing] = field(default_factory=dict)
    overlaps: list[account.Overlap] = field(default_factory=list)


def open_splits(source: Source, selection: Selection, folder: Path, workers: int) -> OpenSplits:
    """Open the image caches of a run; build those that are not there.

    Args:
        source: where the images come from.
        selection: which of them take part.
        folder: of the image caches.
        workers: processes that decode.

    Raises:
        UserError: If files are missing or broken.
    """
    # Listed once, and arrays only if a cache has to be built.
    load = functools.cache(source.load)
    listings = source.listings(load)
    caches: dict[str, ImageCache] = {}
    for name in selection.splits(listings):
        recipe = selection.recipe(name, listings)
        key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]

        def content(name: str = name) -> Content:
            return selection.content(name, load())

        place = folder / f"{source.name}-{name}-{recipe['size']}px-{key}"
        caches[name] = open_or_build(place, content, workers)
    origins = {name: selection.origin(name, listings) for name in caches}
    # Arrays are not read again only to name what has no name but its number.
    parts = load().parts() if load.cache_info().currsize else {}
    named = {name: parts.get(origin) for name, origin in origins.items()}
    listed = {name: listings[origin] for name, origin in origins.items()}
    return OpenSplits(caches, listed, account.overlaps(caches, named))


def require_trainable(train: ImageCache, name: str, batch_size: int) -> None:
    """Every class has an image, and a batch is no larger than the training set.

    Args:
        train: the training images.
        name: of the dataset.
        batch_size: samples a training step.

    Raises:
        UserError: A line for each that does not hold.
    """
    problems = Problems()
    absent = sorted(set(range(len(train.class_names))) - set(train.labels.tolist()))
    names = ", ".join(train.class_names[label] for label in absent)
    problems.require(not absent, f"{name}/train", "has classes without images", names)
    problems.require(
        batch_size <= len(train),
        "dataset.batch_size",
        f"is larger than the {len(train)} training images",
        batch_size,
        f"Use dataset.batch_size={max(1, len(train) // 4)}, say.",
    )
    problems.raise_if_any()
