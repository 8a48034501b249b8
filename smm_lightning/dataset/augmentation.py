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

    def words(self, size: int) -> str:
        """For people, with crops of ``size`` pixels."""
        train = [f"resized to {size + self.margin} px"]
        train += [f"random crop of {size} px"] * (self.margin > 0) + ["random flip"] * self.flip
        same = "" if len(train) == 1 else f" (tests: resized to {size} px)"
        return f"{', '.join(train)}{same}"


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
    # One after the other: adding them up would give seed 1 in epoch 0 the bits of 0 in 1.
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


def crop_indices(
    index: Tensor, size: int, augmentation: Augmentation, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """The rows and columns that random crop and flip take out of larger images.

    Source: SMM ``instancewise_vp.py``, RandomCrop(S) out of Resize(S + 32), RandomHorizontalFlip.

    Args:
        index: (B,) the samples' numbers in their split.
        size: side of the crop S, in pixels.
        augmentation: margin and flip.
        seed: of the run.
        epoch: of the training.

    Returns:
        Row and column numbers, each (B, S), in 0 .. S + margin - 1.
    """
    rows, columns = whole(index, size)
    if augmentation.margin:
        offsets = augmentation.margin + 1
        rows = rows + random_bits(seed, epoch, index, stream=0)[:, None] % offsets
        columns = columns + random_bits(seed, epoch, index, stream=1)[:, None] % offsets
    if augmentation.flip:
        # The columns are turned round, so flipping costs no pass over the pixels.
        mirrored = (random_bits(seed, epoch, index, stream=2) & 1).bool()
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    return rows, columns


def whole(index: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """All rows and columns of images of ``size``, each (B, size)."""
    lines = torch.arange(size, device=index.device).expand(len(index), size)
    return lines, lines
