"""Figures 5 and 13 to 23: image, pattern, mask and what the frozen network is shown."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smm_lightning.figures.style import COLUMN, Figure, new_figure
from smm_lightning.figures.trained import Trained

_COLUMNS = ("image", "pattern", "mask", "shown")


def panels(trained: Trained, count: int = 4) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """The four pictures of the first test image of each of ``count`` classes, and the classes.

    Returns:
        Arrays (count, S, S, 3) in the units of the network's input: ``image`` and ``shown`` in
        [0, 1] or a little beyond, ``pattern`` as it is added, ``mask`` as it is multiplied.
    """
    images, targets = trained.images("test", 2000)
    classes = torch.unique(targets)[:count]
    chosen = torch.stack([(targets == label).nonzero()[0, 0] for label in classes])
    images, targets = images[chosen], targets[chosen]
    transform = trained.module.input_transform
    with torch.inference_mode():
        shown = transform(images)
        mask = transform.mask(images)
        pattern = getattr(transform, "pattern", None)
        added = torch.zeros_like(shown[:1]) if pattern is None else pattern.detach()[None]
    mean = transform.mean.view(1, 3, 1, 1)
    std = transform.variance.sqrt().view(1, 3, 1, 1)
    found = {
        "image": images,
        "pattern": added.expand_as(shown),
        "mask": mask,
        "shown": shown * std + mean,
    }
    arrays = {name: _pixels(value) for name, value in found.items()}
    return arrays, [trained.class_names[int(label)] for label in targets]


def draw(trained: Trained) -> tuple[Figure, dict[str, NDArray[np.float32]]]:
    """True colours in the upper half, histogram-equalised (as printed) in the lower half."""
    arrays, names = panels(trained)
    rows = len(names)
    figure = new_figure(COLUMN, 1.7 * rows + 0.4)
    axes = figure.subplots(2 * rows, 4, squeeze=False)
    for half, look in enumerate((true_colours, equalised)):
        for row in range(rows):
            for column, name in enumerate(_COLUMNS):
                axis = axes[half * rows + row, column]
                axis.imshow(look(arrays[name][row], centred=name in ("pattern", "mask")))
                axis.set_xticks([])
                axis.set_yticks([])
                axis.grid(visible=False)
                if row == 0:
                    axis.set_title(name if half == 0 else f"{name}, equalised", fontsize=6)
            axes[half * rows + row, 0].set_ylabel(names[row], fontsize=6)
    figure.suptitle(f"{trained.method}, run {trained.result['run_key']}", fontsize=7)
    return figure, arrays


def true_colours(picture: NDArray[np.float32], *, centred: bool) -> NDArray[np.float32]:
    """Images as they are; patterns and masks with 0 as mid-grey and their largest value as 1 or 0.

    Args:
        picture: (S, S, 3).
        centred: whether 0 is the middle of its values.
    """
    if centred:
        picture = picture / max(2 * float(np.abs(picture).max()), 1e-8) + 0.5
    return np.clip(picture, 0, 1)


def equalised(picture: NDArray[np.float32], *, centred: bool) -> NDArray[np.float32]:  # noqa: ARG001
    """Each channel's values replaced by their ranks in [0, 1]: every detail shows.

    Args:
        picture: (S, S, 3).
        centred: without influence; the signature of :func:`true_colours`.
    """
    flat = picture.reshape(-1, 3)
    ranks = np.empty_like(flat)
    for channel in range(3):
        values, inverse, counts = np.unique(
            flat[:, channel], return_inverse=True, return_counts=True
        )
        below = np.cumsum(counts) - counts
        ranks[:, channel] = (
            below[inverse] / max(1, len(flat) - counts[-1]) if len(values) > 1 else 0.5
        )
    return np.clip(ranks, 0, 1).reshape(picture.shape)


def _pixels(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().permute(0, 2, 3, 1).cpu().numpy()
    return array
