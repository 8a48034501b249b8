"""Sample-specific masks: the paper's method and its two ablations."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le, Predicate
from torch import Tensor, nn
from typing_extensions import override

from smm_lightning.errors import Problems
from smm_lightning.method.input_transform import InputTransform
from smm_lightning.method.interpolation import INTERPOLATIONS, READS
from smm_lightning.method.mask_generator import MaskGenerator


def power_of_two(value: int) -> bool:
    """1, 2, 4, 8, ..."""
    return value.bit_count() == 1


PatchSize = Annotated[int, Ge(1), Le(4096), Predicate(power_of_two)]


def _check(image_size: int, patch_size: int, start: str, *, full: bool) -> None:
    """Of the arguments of :class:`SampleSpecificMask`; ``full``: it can be the full prompt."""
    problems = Problems()
    what, hint = "must be a power of two", "Use 1, 2, 4, 8 or 16."
    problems.require(power_of_two(patch_size), "method.patch_size", what, patch_size, hint)
    what = f"is larger than the input of {image_size}"
    problems.require(patch_size <= image_size, "method.patch_size", what, patch_size)
    what = "is the full prompt, which needs a pattern and masks of three channels"
    hint = "Use method.start=published."
    problems.require(full or start == "published", "method.start", what, start, hint)
    problems.raise_if_any()


class SampleSpecificMask(InputTransform):
    """norm(r(x)) + delta * up(f_mask(norm(r(x)))): SMM, paper equation 3.

    With the generator's last layer at weight 0 and bias 1 this equals the full prompt; with
    delta = 1 it equals ``only_mask`` (paper section 4).

    Source: paper section 3; published ``instance_model.py``, class ``InstancewiseVisualPrompt``.

    Args:
        image_size: side S of the backbone's input.
        mean: the backbone's normalisation.
        std: likewise.
        patch_size: 2^l, side of the patch that shares a mask value, in pixels.
        layers: convolutions of the mask generator; see :class:`MaskGenerator`.
        width: channels of its first convolution.
        channels: 3, or 1 for one mask for all colour channels (Table 3).
        interpolation: ``patchwise``, ``bilinear`` or ``bicubic`` (Table 5).
        learn_pattern: ``False`` leaves out delta: the mask itself is added (Table 3, only f_mask).
        start: of the generator: ``published``, PyTorch's own, or ``full``: the last layer has
            weight 0 and bias 1, so that every mask is 1 and SMM begins as the full prompt.

    Raises:
        UserError: If the patch size is no power of two, or does not fit the input or the layers, or
            the start is ``full`` without a pattern or for one channel, which have no such layer.
    """

    def __init__(
        self,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        patch_size: PatchSize = 8,
        layers: Annotated[int, Ge(2), Le(16)] = 5,
        width: Annotated[int, Ge(1), Le(512)] = 8,
        channels: Literal[1, 3] = 3,
        interpolation: Literal["patchwise", "bilinear", "bicubic"] = "patchwise",
        learn_pattern: bool = True,
        start: Literal["published", "full"] = "published",
    ) -> None:
        super().__init__(image_size, mean, std)
        _check(image_size, patch_size, start, full=learn_pattern and channels == 3)  # noqa: PLR2004
        self.patch_size = patch_size
        self.upsample = INTERPOLATIONS[interpolation]
        # Of every value of the mask, as often as the interpolation reads the coarse one (Table 5).
        self.pixel_accesses = READS[interpolation] * channels * image_size**2
        generator = MaskGenerator(layers, patch_size.bit_length() - 1, width, channels)
        if start == "full":
            generator.answer_one()
        # Few channels on large planes: twice as fast in this layout (docs/BENCHMARKS.md).
        self.mask_generator = generator.to(memory_format=torch.channels_last)
        self.pattern = (
            nn.Parameter(torch.zeros(3, image_size, image_size)) if learn_pattern else None
        )

    @override
    def forward(self, images: Tensor) -> Tensor:
        images = self.normalize(images)  # f_mask sees what the backbone would (published code)
        mask = self._mask_of(images)
        return images + mask if self.pattern is None else torch.addcmul(images, self.pattern, mask)

    @override
    def mask(self, images: Tensor) -> Tensor:
        return self._mask_of(self.normalize(images)).expand(-1, 3, -1, -1)

    def _mask_of(self, normalized: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, channels, S, S)."""
        # On a CPU, three channels are fastest one after the other, and the generator's interleaved.
        inputs = normalized.contiguous(memory_format=torch.channels_last)
        coarse = self.mask_generator(inputs).contiguous()
        return self.upsample(coarse, self.image_size, self.patch_size)

    @override
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        generator = list(self.mask_generator.parameters())
        pattern = {} if self.pattern is None else {"pattern": [self.pattern]}
        return {**pattern, "mask_generator": generator}

    def facts(self) -> dict[str, float]:
        """Values of the coarse mask that are read for one image (paper Table 5)."""
        return {"method/pixel_accesses": self.pixel_accesses}
