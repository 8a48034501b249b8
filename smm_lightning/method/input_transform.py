"""f_in: what every method of visual reprogramming does to an image before the frozen network."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from smm_lightning.device import AtLeastFloat32
from smm_lightning.method.per_channel import normalized


class InputTransform(AtLeastFloat32, ABC):
    """Contract of a method: images in, input of the backbone out.

    Args:
        image_size: side S of the backbone's input, in pixels.
        mean: the backbone's normalisation, per channel, for images in [0, 1].
        std: likewise.

    Attributes:
        input_size: side of the images that ``forward`` takes, in pixels.
        augmented: whether training images are randomly cropped and flipped.
    """

    input_size: int
    augmented: bool = True
    mean: Tensor
    variance: Tensor

    def __init__(self, image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.image_size = image_size
        self.input_size = image_size
        # Facts of the backbone, not results of training: kept out of the checkpoint.
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        # The variance, because batch_norm takes it, and one kernel normalises.
        self.register_buffer("variance", torch.tensor(std) ** 2, persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) in [0, 1] to zero mean and unit variance of the pre-training images."""
        return normalized(images.to(self.mean.dtype), self.mean, self.variance)

    def bare(self, images: Tensor) -> Tensor:
        """The backbone's input (B, 3, S, S) without a prompt, for images as ``forward`` takes."""
        size = self.image_size
        if images.shape[-1] != size:  # the pad method works on smaller images
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        return self.normalize(images)

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, input_size, input_size) in [0, 1] to the backbone's input (B, 3, S, S)."""

    @abstractmethod
    def mask(self, images: Tensor) -> Tensor:
        """The mask (B, 3, S, S) that each image gets; for pictures and statistics."""

    @abstractmethod
    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What is trained, by the names that the optimiser's settings use."""

    def facts(self) -> dict[str, float]:
        """Numbers for the result file that follow from the settings alone."""
        return {}
