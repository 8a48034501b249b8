"""What an input transform does to images, as pictures."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smm_lightning.method import InputTransform

VIEWS = ("image", "pattern", "mask", "shown")


@torch.inference_mode()
def views(transform: InputTransform, images: Tensor) -> dict[str, NDArray[np.float32]]:
    """The image, the pattern as it is added, the mask that it is multiplied with, and their sum.

    Args:
        transform: in eval mode.
        images: (B, 3, input_size, input_size) in [0, 1].

    Returns:
        By the names of :data:`VIEWS`: (B, s, s, 3); ``image`` and ``shown`` in [0, 1] or a little
        beyond, ``pattern`` and ``mask`` in their own units.
    """
    shown = transform(images)
    pattern = getattr(transform, "pattern", None)
    added = torch.zeros_like(shown[:1]) if pattern is None else pattern.detach()[None]
    mean, std = (v.view(1, 3, 1, 1) for v in (transform.mean, transform.variance.sqrt()))
    arrays = (images, added.expand_as(shown), transform.mask(images), shown * std + mean)
    return {name: _pixels(value) for name, value in zip(VIEWS, arrays, strict=True)}


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
        below = np.searchsorted(np.sort(flat[:, channel]), flat[:, channel])
        ranks[:, channel] = below / below.max() if below.any() else 0.5
    return np.clip(ranks, 0, 1).reshape(picture.shape)


def _pixels(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.float().permute(0, 2, 3, 1).cpu().numpy()
    return array
