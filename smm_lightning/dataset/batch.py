"""A batch: ours, and what a training loop of one's own hands over, checked."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor

from smm_lightning.errors import problem
from smm_lightning.text import same_but_form

_IMAGE_KEYS = ("image", "images", "pixel_values")
_TARGET_KEYS = ("target", "targets", "label", "labels")
_ROUNDING = 1e-3  # beyond [0, 1] that resizing may leave


class Batch(TypedDict):
    """What the training loop gets from our datamodule, on the device.

    Attributes:
        image: (B, 3, size, size) float32 in [0, 1], cropped and flipped.
        target: (B,) int64.
        index: (B,) int64, the samples' numbers in their split.
        loss_weight: what the loss is multiplied with, so that the mean over ranks is the mean over
            samples.
    """

    image: Tensor
    target: Tensor
    index: Tensor
    loss_weight: float


def checked_batches(
    batches: Iterable[Any], size: int, classes: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images (B, 3, size, size) in [0, 1] and targets (B,) int64, from pairs or dictionaries.

    Args:
        batches: of a loader.
        size: side of the images, in pixels.
        classes: T; targets are 0 to T - 1.

    Raises:
        UserError: If a batch is something else, or there is none.
    """
    if not isinstance(batches, Iterable):
        raise problem("batches", "must be a loader, or a list of batches", type(batches).__name__)
    any_batch = False
    for batch in batches:
        any_batch = True
        images, targets = pair_of(batch)
        yield checked_images(images, size), checked_targets(targets, len(images), classes)
    if not any_batch:
        again = iter(batches) is batches
        hint = "An iterator is used up after one pass: hand over the loader itself, or a list."
        raise problem("batches", "holds no batch", hint=hint if again else "")


def pair_of(batch: Any) -> tuple[Any, Any]:
    """Images and targets of a batch, which is a pair or a dictionary.

    Raises:
        UserError: If it is neither.
    """
    if isinstance(batch, Mapping):
        keys = [
            next((k for k in known if k in batch), None) for known in (_IMAGE_KEYS, _TARGET_KEYS)
        ]
        if None not in keys:
            return batch[keys[0]], batch[keys[1]]
        hint = f"One of {', '.join(_IMAGE_KEYS)} and one of {', '.join(_TARGET_KEYS)} are needed."
        raise problem("batches", "a dictionary without images or targets", list(batch), hint)
    if isinstance(batch, tuple | list) and len(batch) == 2:  # noqa: PLR2004
        return batch[0], batch[1]
    what = "must be pairs of images and targets"
    raise problem("batches", what, type(batch).__name__)


def require_form(images: Any, size: int) -> None:
    """Images that a classifier takes have a shape and a kind.

    Raises:
        UserError: If they are no tensor (B, 3, size, size) of floating-point numbers.
    """
    if not isinstance(images, Tensor):
        raise problem("images", "must be a tensor", type(images).__name__)
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):  # noqa: PLR2004
        raise problem("images", f"must have the shape (B, 3, {size}, {size})", tuple(images.shape))
    if not images.is_floating_point():
        hint = "Divide by 255: images.float() / 255."
        raise problem("images", "must be floating-point numbers in [0, 1]", images.dtype, hint)


def checked_images(images: Any, size: int) -> Tensor:
    """The images, if the classifier takes them.

    Raises:
        UserError: If they have another form, or lie outside [0, 1].
    """
    require_form(images, size)
    assert isinstance(images, Tensor)
    low, high = images.aminmax() if images.numel() else (images.new_zeros(()), images.new_ones(()))
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # also where one is not a number
        hint = "The classifier normalises them itself."
        got = f"{low.item():.3g} to {high.item():.3g}"
        raise problem("images", "must lie in [0, 1]", got, hint)
    return images


def checked_targets(targets: Any, count: int, classes: int) -> Tensor:
    """The targets (B,) as int64.

    Raises:
        UserError: If they are no class numbers, or not one for each image.
    """
    try:
        numbers: Tensor = torch.as_tensor(targets)
    except (TypeError, ValueError, RuntimeError) as error:
        raise problem("targets", "must be class numbers of shape (B,)", targets) from error
    whole = not (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool)
    if numbers.ndim != 1 or not whole:
        if numbers.ndim != 2:  # noqa: PLR2004
            hint = "Take targets.long()."
        elif numbers.shape[1] == 1:
            hint = "Take targets.squeeze(1)."
        else:
            hint = "Of one-hot targets take targets.argmax(1)."
        got = f"{numbers.dtype} of shape {tuple(numbers.shape)}"
        raise problem("targets", "must be class numbers of shape (B,)", got, hint)
    if len(numbers) != count:
        raise problem("targets", f"must be one for each of the {count} images", len(numbers))
    numbers = numbers.long()
    outside = numbers[(numbers < 0) | (numbers >= classes)]
    if len(outside):
        raise problem("targets", f"must be from 0 to {classes - 1}", int(outside[0]))
    return numbers


def checked_names(class_names: Any) -> list[str]:
    """Names of target classes, as a list.

    Raises:
        UserError: If they are one text, empty, no texts, hold control characters, or are not all
            different to the eye.
    """
    if isinstance(class_names, str | set | frozenset) or not isinstance(class_names, Iterable):
        what = "must be a list of names, in the order of the class numbers"
        raise problem("class_names", what, class_names)
    names = list(class_names)
    if not names or not all(isinstance(name, str) for name in names):
        raise problem("class_names", "must be texts, at least one", names)
    if unseen := [name for name in names if any(unicodedata.category(c) == "Cc" for c in name)]:
        raise problem("class_names", "must hold no control characters", unseen[0])
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise problem("class_names", "must all be different", ", ".join(twice))
    if alike := same_but_form(names, names):
        what = "are the same but for the form of their Unicode characters"
        raise problem("class_names", what, ", ".join(map(repr, alike)))
    return names
