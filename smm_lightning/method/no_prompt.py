"""The bare image, to compare with: linear probing, fine-tuning, the classifier as it is."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from smm_lightning.method.input_transform import InputTransform


class NoPrompt(InputTransform):
    """norm(r(x)): nothing is added, nothing is learned.

    Args:
        image_size: side S of the backbone's input.
        mean: the backbone's normalisation.
        std: likewise.
        augmented: whether training images are randomly cropped and flipped.
    """

    def __init__(
        self,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        augmented: bool = False,
    ) -> None:
        super().__init__(image_size, mean, std)
        self.augmented = augmented

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.normalize(images)

    @override
    def mask(self, images: Tensor) -> Tensor:
        return torch.zeros_like(images)

    @override
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {}
