"""PIL's bilinear resize on the device, bit for bit, for the part of the image that is wanted.

PIL resizes along the rows, rounds to whole grey levels, then along the columns. Its weights are
multiples of 2^-22, so 32-bit integers hold all sums and the result does not depend on the device.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_BITS = 22  # of PIL's fixed-point weights


def resize(images: Tensor, rows: Tensor, columns: Tensor, size: int) -> Tensor:
    """Rows and columns of the images as PIL would resize them to ``size`` x ``size``.

    Args:
        images: (B, h, w, C) uint8.
        rows: (B, H) int64, which rows of each resized image.
        columns: (B, W) int64, which columns.
        size: side of the whole resized image, in pixels.

    Returns:
        (B, H, W, C) uint8.
    """
    if images.shape[1:3] == (size, size):
        return _pixels(images, rows, columns)
    # Along the rows first, as PIL does: it rounds between the two.
    along_rows = _resampled(images.transpose(1, 2), columns, size)  # (B, W, h, C)
    return _resampled(along_rows.transpose(1, 2).contiguous(), rows, size).to(torch.uint8)


def _pixels(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    count, height, width, channels = images.shape
    sample = torch.arange(count, device=images.device)[:, None, None]
    flat = (sample * height + rows[:, :, None]) * width + columns[:, None, :]
    chosen = images.reshape(-1, channels).index_select(0, flat.view(-1))
    return chosen.view(count, rows.shape[1], columns.shape[1], channels)


def _resampled(lines: Tensor, wanted: Tensor, size: int) -> Tensor:
    """Weighted sums of lines. (B, n, m, C) and (B, W) to (B, W, m, C) int32 grey levels."""
    count, length, *rest = lines.shape
    flat = lines.reshape(count * length, -1).to(torch.int32)
    first, weights = _taps(length, size, lines.device)
    begin = (torch.arange(count, device=lines.device)[:, None] * length + first[wanted]).view(-1)
    scaled = [weight[wanted].view(-1, 1) for weight in weights]
    total = flat.index_select(0, begin).mul_(scaled[0])
    for tap in range(1, len(scaled)):
        total.addcmul_(flat.index_select(0, begin + tap), scaled[tap])
    # Weights are positive and sum to 1, so nothing leaves 0..255.
    grey = total.add_(1 << (_BITS - 1)).bitwise_right_shift_(_BITS)
    return grey.view(count, wanted.shape[1], *rest)


@lru_cache(maxsize=16)
def _taps(source: int, target: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For every target line the first source line that counts, and the weights from there on.

    Source: Pillow ``Resample.c``: a triangle as wide as a target line (at least a source line),
    cut off at the border, scaled to sum 1, rounded to 2^-22.

    Returns:
        (target,) int64, and (taps, target) int32.
    """
    scale = source / target
    width = max(scale, 1.0)
    center = (np.arange(target) + 0.5) * scale
    low = np.maximum((center - width + 0.5).astype(np.int64), 0)
    high = np.minimum((center + width + 0.5).astype(np.int64), source)
    line = np.arange(source)
    distance = np.abs((line + 0.5 - center[:, None]) / width)
    inside = (line >= low[:, None]) & (line < high[:, None])
    weights = np.where(inside, np.maximum(1 - distance, 0), 0)
    weights /= weights.sum(1, keepdims=True)
    fixed = np.floor(weights * (1 << _BITS) + 0.5).astype(np.int32)
    count = int((fixed != 0).sum(1).max())
    first = np.minimum((fixed != 0).argmax(1), source - count)
    taps = np.stack([fixed[np.arange(target), first + tap] for tap in range(count)])
    return torch.from_numpy(first).to(device), torch.from_numpy(taps).to(device)
