"""A trained classifier from any of its files."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smm_lightning.classifier import ReprogrammedClassifier, read_prompt
from smm_lightning.dataset.decoding import Decoding
from smm_lightning.device import AUTOCAST, precision_for
from smm_lightning.errors import Problems, UserError, one_line, problem
from smm_lightning.inference.export_file import load_onnx, load_torch
from smm_lightning.method import use_kernel
from smm_lightning.run.declared import check_values

PRECISIONS = ("32-true", "auto", *AUTOCAST)


class Model:
    """Anything that classifies images.

    Args:
        logits: images (B, 3, input_size, input_size) in [0, 1] to target logits (B, T); it is
            called in threads, and enters itself what autocast it wants.
        input_size: side of the images, in pixels.
        class_names: of the T classes.
        decoding: from image files to RGB, as in training.
        device: that computes.
    """

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        input_size: int,
        class_names: list[str],
        decoding: Decoding,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - a value
    ) -> None:
        self.logits = logits
        self.input_size = input_size
        self.class_names = class_names
        self.decoding = decoding
        self.device = device

    def confidences(self, images: Tensor) -> Tensor:
        """Images as for ``logits`` to (B, T), rows of sum 1."""
        return self.logits(images).float().softmax(1)


def load_model(
    path: Path,
    device: torch.device,
    weights: str | None = None,
    precision: str = "32-true",
    trust: Collection[str] = (),
) -> Model:
    """A checkpoint, a run's folder, or an export.

    Args:
        path: of it.
        device: to compute on; an ``.onnx`` is computed on the CPU.
        weights: a local file of the frozen weights, for checkpoints and prompts.
        precision: of checkpoints and prompts; ``auto`` as in training.
        trust: see :class:`TrustedParts`.

    Raises:
        UserError: If the file is missing, damaged, or of another kind.
    """
    if path.suffix in (".pt2", ".onnx") and precision != "32-true":
        raise problem("--precision", "an export has its own, 32-true", precision)
    if path.suffix in (".pt2", ".onnx"):
        logits, facts = load_torch(path, device) if path.suffix == ".pt2" else load_onnx(path)
        decoding = _decoding(path, facts["decoding"])
        size, names = facts["input_size"], facts["class_names"]
        where = device if path.suffix == ".pt2" else torch.device("cpu")
        return Model(logits, size, names, decoding, where)
    prompt = read_prompt(path)
    classifier = ReprogrammedClassifier.from_prompt(prompt, weights=weights, trust=trust).to(device)
    half = AUTOCAST.get(precision_for(precision, device, classifier.backbone.body))
    use_kernel(classifier, fast=True)

    @torch.inference_mode()
    def answers(images: Tensor) -> Tensor:
        with torch.autocast(device.type, half, enabled=half is not None):
            target: Tensor = classifier(images.to(device))
        return target

    decoding = _decoding(path, prompt.parts["decoding"])
    return Model(answers, classifier.input_size, classifier.class_names, decoding, device)


def _decoding(path: Path, arguments: Mapping[str, Any]) -> Decoding:
    check_values(Decoding, arguments, f"{path}: decoding", problems := Problems())
    problems.raise_if_any()
    try:
        return Decoding(**arguments)
    except UserError as error:  # which names a field of the configuration
        raise problem(f"{path}: decoding", one_line(error).rstrip(".")) from error
