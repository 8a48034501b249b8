"""Methods whose mask is fixed and the same for every image: pad, narrow, medium, full."""

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from smm_lightning.errors import problem
from smm_lightning.method.input_transform import InputTransform
from smm_lightning.ranges import ImageSize


class FramePrompt(InputTransform):
    """norm(r(x)) + delta * M, with M = 1 on a frame at the border: narrow, medium and full.

    Source: paper section 5 (watermarking baselines); ILM-VP ``AdditiveVisualPrompt``.

    Args:
        image_size: side S of the backbone's input.
        mean: the backbone's normalisation.
        std: likewise.
        frame: width of the frame as a share of S: 1/8 narrow, 1/4 medium, 1/2 everywhere (full).

    Raises:
        UserError: If the frame is narrower than a pixel.
    """

    frame_mask: Tensor

    def __init__(
        self,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        frame: Annotated[float, Gt(0), Le(0.5)],
    ) -> None:
        super().__init__(image_size, mean, std)
        width = int(image_size * frame)
        if width < 1:
            raise problem("method.frame", f"is narrower than a pixel of {image_size}", frame)
        self.pattern = nn.Parameter(torch.zeros(3, image_size, image_size))
        mask = torch.ones(3, image_size, image_size)
        mask[:, width : image_size - width, width : image_size - width] = 0
        if frame == 0.5:  # noqa: PLR2004 - an odd size has a middle pixel, and full covers it too
            mask.fill_(1)
        # Follows from the settings, so it is in no checkpoint.
        self.register_buffer("frame_mask", mask, persistent=False)

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.normalize(images) + self.pattern * self.frame_mask

    @override
    def mask(self, images: Tensor) -> Tensor:
        return self.frame_mask.expand(len(images), -1, -1, -1)

    @override
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"pattern": [self.pattern]}


class PadPrompt(InputTransform):
    """The image at its native size in the middle, sigmoid(delta) around it, then normalised.

    delta = 0 starts as a mid-grey border. Training images are not augmented, as published.

    Source: paper section 5; ILM-VP ``ExpansiveVisualPrompt``.

    Args:
        image_size: side S of the backbone's input.
        mean: the backbone's normalisation.
        std: likewise.
        native_size: side n of the image inside, smaller than S.

    Raises:
        UserError: If the image is not smaller than the canvas.
    """

    augmented = False
    border_mask: Tensor

    def __init__(
        self, image_size: int, mean: Sequence[float], std: Sequence[float], native_size: ImageSize
    ) -> None:
        super().__init__(image_size, mean, std)
        if native_size >= image_size:
            raise problem(
                "dataset.native_size",
                f"the pad method needs images smaller than the backbone's input of {image_size}",
                native_size,
                "Use a smaller dataset.native_size, or a larger backbone.image_size.",
            )
        self.input_size = native_size
        # An odd border is one pixel wider above and left, as in ILM-VP.
        before = (image_size - native_size + 1) // 2
        after = (image_size - native_size) // 2
        self.padding = (before, after, before, after)
        self.pattern = nn.Parameter(torch.zeros(3, image_size, image_size))
        inside = torch.zeros(3, native_size, native_size)
        border = functional.pad(inside, self.padding, value=1)
        self.register_buffer("border_mask", border, persistent=False)

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.normalize(self.compose(images))

    def compose(self, images: Tensor) -> Tensor:
        """Images (B, 3, n, n) in [0, 1] to (B, 3, S, S) in [0, 1]: before normalisation."""
        canvas = functional.pad(images, self.padding)
        # Through the sigmoid, so that the border stays a picture in [0, 1]; frames may leave it.
        return canvas + torch.sigmoid(self.pattern) * self.border_mask

    @override
    def mask(self, images: Tensor) -> Tensor:
        return self.border_mask.expand(len(images), -1, -1, -1)

    @override
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"pattern": [self.pattern]}
