"""A layer of the mask generator: plain, and as a kernel with few passes over large planes.

The planes of the mask generator are large and have few channels, so it costs what it reads and
writes. Pooling before normalising leaves a quarter of the values to scale, clip and sum up.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from smm_lightning.method.per_channel import normalized

_PLANES = (0, 2, 3)  # all dimensions but the channels


class ConvBlock(nn.Sequential):
    """Convolution, BatchNorm, ReLU, and a 2x2 max-pool if asked for.

    Source: paper figure 8; published ``instance_model.py``, class ``AttributeNet``.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        pooled: halve the sides.

    Attributes:
        fast: compute the same by the kernel, with these liberties: the pool comes first (it keeps
            the order of values, so values and gradients are the same); in training, the
            convolution's bias, which BatchNorm takes away again, gets a gradient of exactly zero
            instead of rounding errors; on several ranks, BatchNorm takes the statistics of the
            whole batch, on any backend.
    """

    def __init__(self, inputs: int, outputs: int, *, pooled: bool) -> None:
        layers = [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers, *([nn.MaxPool2d(2)] if pooled else []))
        self.pooled = pooled
        self.fast = False

    def forward(self, images: Tensor) -> Tensor:
        """(B, inputs, h, w) to (B, outputs, h, w), or half the sides."""
        norm = cast("nn.BatchNorm2d", self[1])
        if self.fast and norm.momentum is not None:  # as it is where averaged weights are tried
            return self._fast(images)
        for layer in self:
            images = layer(images)
        return images

    def _fast(self, images: Tensor) -> Tensor:
        convolution, norm = cast("nn.Conv2d", self[0]), cast("nn.BatchNorm2d", self[1])
        # |gamma| keeps the order of the values, so the pool may come first.
        sign = torch.where(norm.weight.detach() < 0, -1.0, 1.0)
        kernel, scale = convolution.weight * sign.view(-1, 1, 1, 1), norm.weight * sign
        bias, mean, var = convolution.bias, norm.running_mean, norm.running_var
        assert bias is not None
        assert mean is not None
        assert var is not None
        if not self.training:
            scale = scale * torch.rsqrt(var + norm.eps)
            shift = (bias - mean) * sign * scale + norm.bias
            planes = functional.conv2d(images, kernel * scale.view(-1, 1, 1, 1), shift, padding=1)
            return (functional.max_pool2d(planes, 2) if self.pooled else planes).relu_()
        planes = functional.conv2d(images, kernel, padding=1)
        result, batch_mean, batch_var, count = _NormPoolRelu.apply(
            planes, scale, norm.bias, bias, norm.eps, self.pooled
        )
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            assert norm.momentum is not None
            norm.num_batches_tracked += 1
            mean.lerp_(batch_mean * sign + bias, norm.momentum)
            var.lerp_(batch_var * count / (count - 1), norm.momentum)
        return cast("Tensor", result)


def use_kernel(module: nn.Module, *, fast: bool) -> None:
    """Let all blocks in a module compute by the kernel, or by their layers one by one."""
    for part in module.modules():
        if isinstance(part, ConvBlock):
            part.fast = fast


class _NormPoolRelu(Function):
    """relu(max_pool((x - mean) / sqrt(var + eps) * scale + shift)) with the batch's statistics."""

    @staticmethod
    def forward(
        ctx: Any,
        planes: Tensor,
        scale: Tensor,
        shift: Tensor,
        bias: Tensor,  # noqa: ARG004 - has no influence, and so a gradient of zero
        eps: float,
        pooled: bool,  # noqa: FBT001
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(B, C, h, w) planes and (C,) parameters; also the batch's mean, variance and count."""
        # Sums of 16-bit values would lose most of their digits.
        wide = planes.to(torch.promote_types(planes.dtype, torch.float32))
        count = wide.new_full((1,), planes.numel() / planes.shape[1])
        total = _over_ranks(torch.cat([wide.sum(_PLANES), count]))
        mean, count = total[:-1] / total[-1], total[-1:]
        one = torch.ones_like(mean)
        # About the mean, in a second pass: E[x^2] - E[x]^2 cancels for large means.
        var = _over_ranks(normalized(wide, mean, one).square_().sum(_PLANES)) / count
        kept, index = planes, None
        if pooled:
            kept, index = functional.max_pool2d_with_indices(planes, [2, 2])
        result = normalized(kept, mean, var, scale, shift, eps)
        # torch.compile of torch 2.11 gives a result that was written in place a gradient of zero.
        result = result.relu() if torch.compiler.is_compiling() else result.relu_()
        inverse = torch.rsqrt(var + eps)  # kept: the backward pass needs it four times
        ctx.save_for_backward(planes, kept, index, result, mean, inverse, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        return result, mean, var, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """As BatchNorm's, but all sums run over the values that the pool kept."""
        planes, kept, index, result, mean, inverse, scale, count = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
        to_shift = gradient.sum(_PLANES, dtype=mean.dtype)
        product = (gradient.to(mean.dtype) * kept).sum(_PLANES)  # float16 might overflow
        to_scale = (product - to_shift * mean) * inverse
        # d planes = scale / std * (gradient - mean(gradient) - z * mean(gradient * z)) with
        # z = (planes - mean) / std: a multiple of the planes and a constant, per channel.
        sums = _over_ranks(torch.cat([to_shift, to_scale])) / count
        of_shift, of_scale = sums.chunk(2)
        factor = -scale * inverse.square() * of_scale
        constant = -scale * inverse * of_shift - factor * mean
        zero, one = torch.zeros_like(mean), torch.ones_like(mean)
        gradient = normalized(gradient, zero, one, scale * inverse)
        if index is not None:
            gradient = torch.ops.aten.max_pool2d_with_indices_backward(
                gradient, planes, [2, 2], [2, 2], [0, 0], [1, 1], ceil_mode=False, indices=index
            )
        gradient = gradient.add_(normalized(planes, zero, one, factor, constant))
        return gradient, to_scale, to_shift, zero, None, None


def _over_ranks(sums: Tensor) -> Tensor:
    """The sum over all ranks of a distributed run."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    return sums
