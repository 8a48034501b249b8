"""ViT-B/32 at 384 with the paper's weights."""

import re
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from typing_extensions import override

from smm_lightning.backbone.spec import BackboneSpec
from smm_lightning.backbone.weights import (
    Weights,
    fetched,
    load_weights,
    read_weights,
)
from smm_lightning.errors import problem


@dataclass(kw_only=True)
class VisionTransformerB32(BackboneSpec):
    """ViT-B/32 at 384: timm's network with the paper's ``B_32_imagenet1k`` weights.

    Trained with mean = std = 0.5, but SMM feeds it ImageNet's mean and std, and so do we.

    Raises:
        UserError: If the size is no multiple of the 32-pixel patch.
    """

    url = (
        "https://github.com/lukemelas/PyTorch-Pretrained-ViT/releases/download/0.0.2/"
        "B_32_imagenet1k.pth"
    )
    _patch = 32

    def __post_init__(self) -> None:
        """See :class:`BackboneSpec`."""
        super().__post_init__()
        if self.image_size % self._patch:
            raise problem(
                "backbone.image_size",
                f"ViT-B/32 takes multiples of {self._patch}",
                self.image_size,
                "The paper uses 384.",
            )

    @override
    def architecture(self) -> nn.Module:
        network: nn.Module = timm.create_model(
            "vit_base_patch32_384", pretrained=False, img_size=self.image_size
        )
        return network

    @override
    def pretrained_network(self) -> nn.Module:
        place = Path(torch.hub.get_dir()) / "checkpoints" / Path(self.url).name

        def load() -> nn.Module:
            if not place.is_file():
                place.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(self.url, str(place), progress=False)
            network = self.architecture()
            load_weights(network, self.translate(read_weights(place)), str(place))
            return network

        return fetched(load, self.url, str(place))

    def translate(self, weights: Weights) -> Weights:
        """PyTorch-Pretrained-ViT's names to timm's; q, k and v become one matrix."""
        if "class_token" not in weights:
            return weights
        translated: dict[str, Tensor] = {}
        for name, value in weights.items():
            if ".attn.proj_q." in name:
                # timm computes q, k and v with one matrix product.
                parts = [weights[name.replace("proj_q", f"proj_{part}")] for part in "qkv"]
                name, value = name.replace("proj_q", "qkv"), torch.cat(parts)  # noqa: PLW2901
            elif ".attn.proj_" in name:
                continue
            for pattern, replacement in _VIT_NAMES:
                name = re.sub(pattern, replacement, name)  # noqa: PLW2901
            translated[name] = value
        return _resampled_positions(translated, self.image_size // self._patch)


_VIT_NAMES = (
    (r"^class_token$", "cls_token"),
    (r"^positional_embedding\.pos_embedding$", "pos_embed"),
    (r"^patch_embedding\.", "patch_embed.proj."),
    (r"^transformer\.", ""),
    (r"^(blocks\.\d+)\.proj\.", r"\1.attn.proj."),
    (r"\.pwff\.", ".mlp."),
    (r"^fc\.", "head."),
)


def _resampled_positions(weights: dict[str, Tensor], side: int) -> dict[str, Tensor]:
    """Fit the position embeddings to ``side`` x ``side`` patches, for other sizes than 384."""
    from timm.layers import resample_abs_pos_embed

    positions = weights["pos_embed"]
    if positions.shape[1] != side * side + 1:
        weights["pos_embed"] = resample_abs_pos_embed(positions, [side, side])
    return weights
