"""Random crop and flip on the device, as a pure function of (seed, epoch, sample index).

Nothing depends on batch size, workers, ranks or what was drawn before, so a resumed run sees the
same images as an uninterrupted one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class Augmentation:
    """What happens to training images: a random crop out of a larger image, and a flip.

    Args:
        margin: how many pixels larger than the crop the image is (32 in the published code).
        flip: mirror every second image, on average.
    """

    margin: int
    flip: bool


# The published code crops and flips on every dataset; a mirrored digit or sign is another one.
PRESETS = {
    "paper": Augmentation(margin=32, flip=True),
    "no_flip": Augmentation(margin=32, flip=False),
    "none": Augmentation(margin=0, flip=False),
}


def random_bits(seed: int, epoch: int, index: Tensor, stream: int) -> Tensor:
    """32 well-mixed random bits per sample; the same on every device.

    Args:
        seed: of the run.
        epoch: of the training.
        index: (B,) int64, the samples' numbers in their split.
        stream: tells independent draws for the same sample apart.

    Returns:
        (B,) int64 in [0, 2^32).
    """
    bits = index & _MASK
    for word in (seed, epoch, stream):
        bits = _mixed(bits ^ _mixed(torch.full_like(bits, word & _MASK) + 0x9E3779B9))
    return bits


def _mixed(bits: Tensor) -> Tensor:
    """An invertible 32-bit hash (the "lowbias32" constants) in int64 arithmetic."""
    bits = bits & _MASK
    bits = ((bits ^ (bits >> 16)) * 0x7FEB352D) & _MASK
    bits = ((bits ^ (bits >> 15)) * 0x846CA68B) & _MASK
    return bits ^ (bits >> 16)


def augment(
    images: Tensor, index: Tensor, augmentation: Augmentation, seed: int, epoch: int
) -> Tensor:
    """Crop and flip each image of a batch.

    Source: SMM ``instancewise_vp.py``, RandomCrop(S) out of Resize(S + 32), RandomHorizontalFlip.

    Args:
        images: (B, C, S + margin, S + margin), any type.
        index: (B,) the samples' numbers in their split.
        augmentation: margin and flip.
        seed: of the run.
        epoch: of the training.

    Returns:
        (B, C, S, S)
    """
    if augmentation.margin == 0 and not augmentation.flip:
        return images
    size = images.shape[-1] - augmentation.margin
    offsets = augmentation.margin + 1
    top = random_bits(seed, epoch, index, stream=0) % offsets
    left = random_bits(seed, epoch, index, stream=1) % offsets
    step = torch.arange(size, device=images.device)
    rows = top[:, None] + step
    columns = left[:, None] + step
    if augmentation.flip:
        mirrored = (random_bits(seed, epoch, index, stream=2) & 1).bool()
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    channel = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
    return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
