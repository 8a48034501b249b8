"""The method as one plain ``nn.Module``, for training loops and programs of one's own."""

from collections.abc import Iterable
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from smm_lightning.backbone import IMAGENET_MEAN, IMAGENET_STD, FrozenBackbone, as_classifier
from smm_lightning.loop_batches import check_normalization, checked_batches, checked_names
from smm_lightning.mapping import LabelMapping, OneToOneMapping, count_pairs
from smm_lightning.method import InputTransform, SampleSpecificMask


class ReprogrammedClassifier(nn.Module):
    """f_out(f_P(f_in(x))): a frozen classifier that answers for other classes (paper equation 1).

    Args:
        backbone: f_P.
        input_transform: f_in.
        label_mapping: f_out.
        class_names: of the target classes.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        input_transform: InputTransform,
        label_mapping: LabelMapping,
        class_names: list[str],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.input_transform = input_transform
        self.label_mapping = label_mapping
        self.class_names = class_names

    @classmethod
    def wrap(
        cls,
        network: nn.Module,
        class_names: list[str],
        *,
        image_size: int = 224,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
        patch_size: int = 8,
        layers: int = 5,
    ) -> Self:
        """SMM with iterative label mapping around any classifier.

        Args:
            network: returns logits (B, source classes), alone, in a tuple, in a dictionary or as
                ``.logits``, in any precision; it is frozen and changed in place.
            class_names: of the target classes, at most as many as the network has.
            image_size: side S of the network's input.
            mean: normalisation of the network, for images in [0, 1].
            std: likewise.
            patch_size: of the masks; see :class:`SampleSpecificMask`.
            layers: of the mask generator; the paper takes 5, and 6 for ViT.

        Raises:
            UserError: If a value is out of range, there are too many target classes, or the network
                is no classifier of such images.
        """
        targets = checked_names(class_names)
        check_normalization(mean, std)
        classifier, sources = as_classifier(network, image_size)
        names = [str(number) for number in range(sources)]
        backbone = FrozenBackbone(classifier, image_size, mean, std, names)
        method = SampleSpecificMask(image_size, mean, std, patch_size=patch_size, layers=layers)
        mapping = OneToOneMapping(sources, len(targets), refresh="epoch")
        return cls(backbone, method, mapping, targets).to(backbone.device)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, input_size, input_size) in [0, 1] to target logits (B, T)."""
        return cast("Tensor", self.label_mapping(self.source_logits(images)))

    def source_logits(self, images: Tensor) -> Tensor:
        """Images to the backbone's logits (B, source classes), before the mapping."""
        return cast("Tensor", self.backbone(self.input_transform(images)))

    @property
    def input_size(self) -> int:
        """Side of the images that ``forward`` takes, in pixels."""
        return self.input_transform.input_size

    @torch.no_grad()
    def refit(self, batches: Iterable[Any]) -> int:
        """Count predictions over the training images and choose the source classes anew.

        For ILM before every epoch, for FLM once before the first (paper section 3.1).

        Args:
            batches: pairs, or dictionaries, of images (B, 3, input_size, input_size) in [0, 1] and
                targets (B,) of class numbers.

        Returns:
            How many target classes changed their source class.

        Raises:
            UserError: If there is no batch, or one holds something else.
        """
        was_training = self.training
        shape = len(self.backbone.class_names), len(self.class_names)
        counts = torch.zeros(shape, dtype=torch.int64)
        device = self.backbone.device
        self.eval()
        try:
            for images, targets in checked_batches(batches, self.input_size, shape[1]):
                predicted = self.source_logits(images.to(device)).argmax(1)
                counts += count_pairs(predicted, targets.to(device), *shape).cpu()
        finally:
            self.train(was_training)
        return self.label_mapping.refit(counts)

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to confidences (B, T) that sum to 1, in eval mode."""
        was_training = self.training
        self.eval()
        try:
            confidences: Tensor = self(images.to(self.backbone.device)).float().softmax(1)
        finally:
            self.train(was_training)
        return confidences
