"""From the coarse mask to the image's size (paper section 3.3; Table 5 compares the three)."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

Interpolation = Callable[[Tensor, int, int], Tensor]


def patchwise(mask: Tensor, size: int, patch_size: int) -> Tensor:
    """Copy every mask value over its patch: no arithmetic on values.

    Where ``size`` is not a multiple of ``patch_size``, the rows and columns left over repeat the
    closest patch (the published ``instance_model.py`` stops with an error there).

    Args:
        mask: (B, C, h, w) with h = w = floor(size / patch_size).
        size: side of the result, in pixels.
        patch_size: side of a patch, in pixels.

    Returns:
        (B, C, size, size)
    """
    if patch_size > 1:
        # As functional.interpolate(mode="nearest"), whose CPU kernel takes five times as long.
        count, channels, height, width = mask.shape
        cells = mask[:, :, :, None, :, None].expand(-1, -1, -1, patch_size, -1, patch_size)
        mask = cells.reshape(count, channels, height * patch_size, width * patch_size)
    rest = size - mask.shape[-1]
    return functional.pad(mask, (0, rest, 0, rest), mode="replicate") if rest else mask


def bilinear(mask: Tensor, size: int, patch_size: int) -> Tensor:  # noqa: ARG001 - one signature
    """(B, C, h, w) to (B, C, size, size), bilinear; arguments as :func:`patchwise`."""
    return functional.interpolate(mask, size=(size, size), mode="bilinear", align_corners=False)


def bicubic(mask: Tensor, size: int, patch_size: int) -> Tensor:  # noqa: ARG001 - one signature
    """(B, C, h, w) to (B, C, size, size), bicubic; arguments as :func:`patchwise`."""
    return functional.interpolate(mask, size=(size, size), mode="bicubic", align_corners=False)


INTERPOLATIONS: dict[str, Interpolation] = {
    "patchwise": patchwise,
    "bilinear": bilinear,
    "bicubic": bicubic,
}
# Values of the coarse mask that are read for each value of the result (paper Table 5).
READS = {"patchwise": 1, "bilinear": 4, "bicubic": 16}
