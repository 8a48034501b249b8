"""f_P: the classifier that is never trained."""

import hashlib
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from smm_lightning.backbone.any_network import place_of
from smm_lightning.backbone.folding import fold_batch_norm
from smm_lightning.backbone.stem import replace_stems


class FrozenBackbone(nn.Module):
    """A classifier in eval mode without trainable weights: (B, 3, S, S) to (B, source classes).

    The network is deliberately not registered as a submodule. So it is absent from ``parameters()``
    and ``state_dict()`` (checkpoints hold the prompt alone), and ``train()`` cannot reach its
    BatchNorm or dropout. It still follows ``to()``, ``cuda()`` and the like.

    Args:
        network: any classifier that returns logits; it is frozen and changed in place.
        image_size: S, in pixels.
        mean: normalisation that the network was trained with.
        std: likewise.
        class_names: of the source classes.
        folded: fold BatchNorm into the convolutions before it: the same function, faster.
        channels_last: keep weights and activations in that memory format: faster convolutions.
        fast_stem: take the gradient to the image by :class:`StemConvolution`: the same, faster.
    """

    network: nn.Module

    def __init__(
        self,
        network: nn.Module,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        class_names: list[str],
        *,
        folded: bool = True,
        channels_last: bool = True,
        fast_stem: bool = True,
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.mean = mean
        self.std = std
        self.class_names = class_names
        network.eval().requires_grad_(requires_grad=False)
        self.sha256 = fingerprint(network)
        self.parameter_count = sum(weight.numel() for weight in network.parameters())
        if folded:
            device, dtype = place_of(network)
            shape = 1, 3, image_size, image_size
            fold_batch_norm(network, torch.zeros(shape, device=device, dtype=dtype))
        if fast_stem:
            replace_stems(network)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        network.to(memory_format=self.memory_format)
        object.__setattr__(self, "network", network)  # past nn.Module's registration

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to source logits (B, source classes)."""
        images = images.to(self.dtype, memory_format=self.memory_format)
        logits: Tensor = self.network(images)
        return logits

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return place_of(self.network)[0]

    @property
    def dtype(self) -> torch.dtype:
        """Of the network's weights."""
        return place_of(self.network)[1]

    def fuse_attention(self, *, fused: bool) -> None:
        """Compute attention as one kernel (timm's transformers), or step by step."""
        for module in self.network.modules():
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", fused)  # noqa: B010 - timm's, unknown to nn.Module

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002
        """Take the network along to another device or precision."""
        self.network._apply(fn, recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def fingerprint(network: nn.Module) -> str:
    """sha256 over the names and bytes of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        flat = value.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())  # NumPy knows no bfloat16
    return digest.hexdigest()
