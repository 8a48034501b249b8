"""Steps in micro-batches: f_in sees the whole batch, f_P one part of it after the other.

Almost all memory of a step are the activations of the frozen network. Accumulated gradients of
smaller batches would save it, too, and change BatchNorm in f_mask; these steps are the same steps.
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from smm_lightning.classifier import ReprogrammedClassifier
from smm_lightning.errors import problem
from smm_lightning.files import read_json, write_atomically
from smm_lightning.ranges import Count
from smm_lightning.run.folder import MICRO_BATCH

Loss = Callable[[Tensor, Tensor], Tensor]
MicroBatchSize = Count | Literal["auto"]


class Step(NamedTuple):
    """What came of a batch.

    Attributes:
        loss: its mean loss.
        source: what the mapping reads, (B, S) or (B, D).
        logits: of the target classes (B, T).
    """

    loss: Tensor
    source: Tensor
    logits: Tensor


def step_in_parts(
    classifier: ReprogrammedClassifier,
    loss: Loss,
    prompted: Tensor,
    targets: Tensor,
    size: int,
    scale: Tensor | float = 1.0,
) -> Step:
    """Loss of a batch, with forward and backward pass through the network part by part.

    Args:
        classifier: whose network and mapping are passed.
        loss: of target logits and targets, a mean over samples.
        prompted: what f_in gave, (B, 3, S, S).
        targets: (B,).
        size: images a part.
        scale: of losses within, so that gradients in float16 do not vanish.
    """
    parts = (classifier.label_mapping, classifier.backbone)
    weights = [w for part in parts for group in part.parameter_groups().values() for w in group]
    asked = _Asked(classifier, loss, targets, size, scale)
    found = _InParts.apply(asked, prompted, *weights)
    return Step(*cast("tuple[Tensor, Tensor, Tensor]", found))


@dataclass(frozen=True)
class _Asked:
    """See :func:`step_in_parts`."""

    classifier: ReprogrammedClassifier
    loss: Loss
    targets: Tensor
    size: int
    scale: Tensor | float

    def part(self, prompted: Tensor, targets: Tensor) -> Step:
        """Of a part, whose share of the mean loss is its share of the samples."""
        source = self.classifier.answers(prompted)
        logits = self.classifier.mapped(source)
        share = len(targets) / len(self.targets)
        return Step(share * self.loss(logits, targets), source, logits)


class _InParts(torch.autograd.Function):
    """Computes the gradients in the forward pass, while a part's activations are there."""

    @staticmethod
    def forward(ctx: Any, asked: _Asked, prompted: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        """See :func:`step_in_parts`."""
        of_weights: list[Tensor] = [torch.zeros_like(weight) for weight in weights]
        of_prompted, steps = [], []
        parts = zip(prompted.split(asked.size), asked.targets.split(asked.size), strict=True)
        for images, targets in parts:
            seen = images.detach().requires_grad_(prompted.requires_grad)
            with torch.enable_grad():
                step = asked.part(seen, targets)
                scaled = asked.scale * step.loss
            wanted = [*([seen] if prompted.requires_grad else []), *weights]
            found = torch.autograd.grad(scaled, wanted, allow_unused=True) if wanted else ()
            gradients = [g if g is None else g / asked.scale for g in found]
            if prompted.requires_grad:
                of_prompted.append(gradients.pop(0))
            for total, gradient in zip(of_weights, gradients, strict=True):
                if gradient is not None:
                    total.add_(gradient)
            steps.append(Step(*(each.detach() for each in step)))
        ctx.save_for_backward(*of_weights, *([torch.cat(of_prompted)] if of_prompted else []))
        ctx.weights = len(weights)
        losses, sources, logits = zip(*steps, strict=True)
        loss, source, answers = torch.stack(losses).sum(), torch.cat(sources), torch.cat(logits)
        ctx.mark_non_differentiable(source, answers)
        return loss, source, answers

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the forward pass, by that of the loss."""
        saved = [gradient * each for each in ctx.saved_tensors]
        of_weights, of_prompted = saved[: ctx.weights], saved[ctx.weights :]
        return None, of_prompted[0] if of_prompted else None, *of_weights


class MicroBatches:
    """How many images a part has: as asked for, or ``auto``: as many as fit into memory.

    Args:
        size: a number, ``auto``, or ``None`` for whole batches.
        folder: of the run, where ``auto`` notes what it found; ``None`` notes nothing.
    """

    def __init__(self, size: MicroBatchSize | None = None, folder: Path | None = None) -> None:
        self.size = size
        self._file = None if folder is None else folder / MICRO_BATCH

    @property
    def active(self) -> bool:
        """Whether batches are taken in parts."""
        return self.size is not None

    def settle(
        self, trial: Callable[[int], None], batch: int, lowest: Callable[[int], int], *, leads: bool
    ) -> int:
        """The number, which ``auto`` finds before the first step of a run.

        Args:
            trial: a step in parts of so many images, which leaves no trace.
            batch: images of this rank's batch.
            lowest: of a number, over all ranks.
            leads: whether this rank notes it.

        Raises:
            UserError: If not even one image fits.
        """
        if isinstance(self.size, int):
            return self.size
        self.size = self._noted() or lowest(largest(trial, batch))
        if leads and self._file is not None:
            write_atomically(self._file, json.dumps({"micro_batch": self.size}).encode())
        return self.size

    def _noted(self) -> int | None:
        """By the run before it was interrupted."""
        try:
            size = read_json(cast("Path", self._file))["micro_batch"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return size if isinstance(size, int) and size > 0 else None


def largest(trial: Callable[[int], None], batch: int) -> int:
    """The first of the batch, its half, its quarter, ... that a device has the memory for.

    Raises:
        UserError: If not even one image fits.
    """
    size = batch
    while True:
        try:
            trial(size)
        except torch.OutOfMemoryError:
            if size == 1:
                what = "one image is more than the memory of this device holds"
                raise problem("micro_batch", what, "auto") from None
        else:
            return size
        # Outside of the handler, whose traceback keeps the activations alive.
        size = (size + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def trial_step(
    classifier: ReprogrammedClassifier, loss: Loss, images: Tensor, targets: Tensor, size: int
) -> None:
    """A step whose gradients are dropped, and that leaves running means alone.

    Args:
        classifier: of the training.
        loss: see :func:`step_in_parts`, as the following.
        images: (B, 3, input_size, input_size) in [0, 1].
        targets: (B,).
        size: images a part.
    """
    transform = copy.deepcopy(classifier.input_transform).eval()
    step = step_in_parts(classifier, loss, transform(images), targets, size)
    weights: Sequence[Tensor] = [w for g in transform.parameter_groups().values() for w in g]
    if weights:
        torch.autograd.grad(step.loss, weights, allow_unused=True)
