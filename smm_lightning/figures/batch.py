"""What a training would see, before there is one."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from numpy.typing import NDArray

from smm_lightning.dataset import ImageDataModule
from smm_lightning.dataset.subsets import Positions
from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import new_figure, without_ticks, write_title

_ROWS, _COLUMNS = 3, 8  # of training images
_MOST_BARS = 30  # that can have names
_LONGEST = 18  # characters of a name below an image


@figure(
    "batch",
    of="data",
    caption="Training images as a training sees them, images of each class, and images that stand "
    "in train and in test.",
)
def batch(data: ImageDataModule) -> Drawn:
    """Augmented training images with their names, counts per class, duplicates of train and test.

    Args:
        data: set up.
    """
    train, test = data.twins("train", "test")
    heights = [3.6, 1.8, 1.1 if len(train) else 0.3]
    drawn = new_figure(7.0, sum(heights))
    places: Any = drawn.subfigures(3, 1, height_ratios=heights)
    positions = data.drawn("train", _ROWS * _COLUMNS)
    images, classes = _images(data, "train", positions)
    names = data.names_of("train", positions)
    _show(places[0], images, [f"{c}\n{_short(n)}" for c, n in zip(classes, names, strict=True)])
    minlength = len(data.class_names)
    counts = {s: np.bincount(data.labels(s), minlength=minlength) for s in data.image_counts}
    _show_counts(places[1].subplots(), data.class_names, counts)
    twins = {"train": data.names_of("train", train), "test": data.names_of("test", test)}
    _show_twins(places[2], data, {"train": train, "test": test}, twins)
    sizes = ", ".join(f"{name} {count:,}" for name, count in data.image_counts.items())
    write_title(drawn, f"{data.name}: {sizes}, {minlength} classes", 8)
    tables: dict[str, Any] = {"counts": {"class": data.class_names, **counts}, "twins": twins}
    return Drawn(drawn, {"images": images, "names": np.array(names)}, tables)


def _images(
    data: ImageDataModule, split: str, positions: Positions
) -> tuple[NDArray[np.float32], list[str]]:
    """Pixels (N, h, w, 3) and names of classes."""
    batches = list(data.plain_batches(split, torch.device("cpu"), positions))
    pixels = torch.cat([one["image"] for one in batches]).permute(0, 2, 3, 1).numpy()
    targets = torch.cat([one["target"] for one in batches]).tolist()
    return pixels, [data.class_names[target] for target in targets]


def _show(
    place: SubFigure, images: Sequence[NDArray[Any]] | NDArray[Any], labels: Sequence[str]
) -> None:
    """Images with labels below them, in rows of eight."""
    rows = -(-len(images) // _COLUMNS)
    for number, axis in enumerate(place.subplots(rows, _COLUMNS, squeeze=False).ravel()):
        without_ticks(axis)
        axis.spines[:].set_visible(False)
        if number < len(images):
            axis.imshow(images[number])
            axis.set_xlabel(labels[number], fontsize=5)


def _show_counts(axis: Axes, names: Sequence[str], counts: dict[str, NDArray[np.int64]]) -> None:
    width = 0.8 / len(counts)
    for number, (split, values) in enumerate(counts.items()):
        axis.bar(np.arange(len(names)) + number * width, values, width, label=split)
    named = len(names) <= _MOST_BARS
    if named:
        middle = np.arange(len(names)) + width * (len(counts) - 1) / 2
        axis.set_xticks(middle, [_short(name) for name in names], fontsize=6, rotation=20)
    axis.set(ylabel="images", xlabel="" if named else "class number")
    axis.legend(ncols=len(counts), loc="lower right", bbox_to_anchor=(1, 1))


def _show_twins(
    place: SubFigure,
    data: ImageDataModule,
    positions: dict[str, Positions],
    names: dict[str, list[str]],
) -> None:
    count, images, labels = len(names["test"]), [], []
    for number in range(min(count, _COLUMNS // 2)):
        for split in ("train", "test"):
            images += [*_images(data, split, positions[split][number : number + 1])[0]]
            labels.append(f"{split}\n{_short(names[split][number])}")
    if images:
        _show(place, images, labels)
    what = f"{count:,} training image{'s' * (count != 1)}" if count else "No training image"
    place.suptitle(f"{what} with the pixels of a test image.", fontsize=7)


def _short(name: str) -> str:
    last = PurePath(name).name or name
    return last if len(last) <= _LONGEST else f"…{last[1 - _LONGEST :]}"
