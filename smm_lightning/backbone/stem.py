"""The gradient to the input, where libraries are slow because training never asks for it."""

from typing import Any, cast

from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from smm_lightning.backbone.folding import is_frozen

_FEW_CHANNELS = 4  # images: beyond these, the library's own gradient is fast


class StemConvolution(nn.Module):
    """A frozen strided convolution on an image, with a fast gradient to the image.

    With only three channels to write, a library's backward pass of such a layer takes up to a fifth
    of the whole network's (docs/BENCHMARKS.md). A stride of s is the same as a stride of 1 on s x s
    pixels stacked as channels: that gradient is a plain convolution followed by a pixel shuffle.

    Args:
        convolution: see :func:`is_stem`; its weights would get no gradient.
    """

    unfolded: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        stride, padding = convolution.stride[0], int(convolution.padding[0])
        weight = convolution.weight.detach()
        outputs, inputs, size, _ = weight.shape
        front = -padding % stride  # zeros until the padding is a multiple of the stride
        taps = -(-(size + front) // stride)
        back = taps * stride - size - front
        weight = functional.pad(weight, (front, back, front, back))
        weight = weight.view(outputs, inputs, taps, stride, taps, stride)
        weight = weight.permute(1, 3, 5, 0, 2, 4).reshape(-1, outputs, taps, taps)
        self.register_buffer("unfolded", weight.flip(2, 3).contiguous(), persistent=False)
        self.skipped = (padding + front) // stride

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, h, w) to (B, outputs, h', w')."""
        return cast("Tensor", _Stem.apply(images, self))


class _Stem(Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, stem: StemConvolution) -> Tensor:
        ctx.stem, ctx.size = stem, images.shape[2:]
        return cast("Tensor", stem.convolution(images))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        stem, (height, width) = ctx.stem, ctx.size
        stride, taps, skipped = stem.convolution.stride[0], stem.unfolded.shape[-1], stem.skipped
        weight = stem.unfolded.to(gradient.dtype)
        stacked = functional.conv2d(gradient, weight, padding=taps - 1)
        rows, columns = (-(-side // stride) for side in (height, width))
        stacked = stacked[:, :, skipped : skipped + rows, skipped : skipped + columns]
        # Rows and columns at the far end that the stride never reaches have no gradient.
        missing = (0, columns - stacked.shape[3], 0, rows - stacked.shape[2])
        pixels = functional.pixel_shuffle(functional.pad(stacked, missing), stride)
        return pixels[:, :, :height, :width].contiguous(), None


def is_stem(module: nn.Module) -> bool:
    """Whether this is a plain strided convolution on an image that is not trained."""
    return (
        type(module) is nn.Conv2d
        and is_frozen(module)
        and module.in_channels <= _FEW_CHANNELS
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.stride[0] == module.stride[1] > 1
        and module.padding[0] == module.padding[1]
        and module.kernel_size[0] == module.kernel_size[1]
    )


def restore_stems(network: nn.Module) -> None:
    """Undo :func:`replace_stems`."""
    names = [n for n, m in network.named_modules() if isinstance(m, StemConvolution)]
    for name in names:
        stem = cast("StemConvolution", network.get_submodule(name))
        network.set_submodule(name, stem.convolution)


def replace_stems(network: nn.Module) -> int:
    """Replace strided convolutions on images in place; return how many there were."""
    done = {m.convolution for m in network.modules() if isinstance(m, StemConvolution)}
    stems = [n for n, m in network.named_modules() if is_stem(m) and m not in done]
    for name in stems:
        stem = StemConvolution(cast("nn.Conv2d", network.get_submodule(name)))
        network.set_submodule(name, stem.eval())
    return len(stems)
