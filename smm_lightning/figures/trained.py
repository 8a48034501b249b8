"""A finished run, brought back to answer questions about its images."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor, nn

from smm_lightning.classifier import ReprogrammedClassifier, learned
from smm_lightning.dataset.subsets import Positions
from smm_lightning.errors import problem
from smm_lightning.mapping import add_pairs
from smm_lightning.report.runs import Run
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.run.images import changed_images, require_noted_images
from smm_lightning.training.assembly import Parts, plan
from smm_lightning.training.provenance import SCHEMA


@dataclass(frozen=True)
class Answers:
    """What a classifier says about some images.

    Attributes:
        source_logits: (N, source classes), before the mapping.
        logits: (N, T) of the target classes.
        targets: (N,) true classes.
    """

    source_logits: Tensor
    logits: Tensor
    targets: Tensor

    @property
    def losses(self) -> Tensor:
        """Cross-entropy of each image (N,)."""
        return nn.functional.cross_entropy(self.logits, self.targets, reduction="none")

    @property
    def confidences(self) -> Tensor:
        """Of the true class (N,)."""
        return self.logits.softmax(1).gather(1, self.targets[:, None]).squeeze(1)


class Trained:
    """The parts of a run with its last weights. Training images are not augmented here.

    Args:
        run: finished.

    Raises:
        UserError: If its checkpoint or its data cannot be read, or the images are others now.
    """

    def __init__(self, run: Run) -> None:
        assert run.result is not None
        require_noted_images(run.result, str(run.folder))
        checkpoint = read_checkpoint(run.folder / "last.ckpt")
        if (version := checkpoint["identity"].get("schema")) != SCHEMA:
            what = "was trained by another version, so this one cannot show its weights"
            hint = "--only training,patch_size,curves needs none; force=true trains it anew."
            raise problem(str(run.folder), what, version, hint)
        self.run = run
        self.result = run.result
        self.method = str(run.value("method.name"))
        config = OmegaConf.create(self.result["config"])
        config.dataset.augmentation = "none"
        self._parts: Parts = plan(config).carry_out()
        if changed := changed_images(self.result, self._parts.data.taken):
            raise problem(str(run.folder), f"was trained with other images: {changed}")
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.classifier.eval().to(self.device)
        self._before = {k: v.clone() for k, v in self.classifier.state_dict().items()}
        self._after = learned(checkpoint["state_dict"])
        self._known: dict[tuple[str, bytes], Answers] = {}
        self.restore()

    @property
    def classifier(self) -> ReprogrammedClassifier:
        """In eval mode."""
        return self._parts.module.classifier

    @property
    def class_names(self) -> list[str]:
        """Of the target classes."""
        return self._parts.data.class_names

    def restore(self) -> None:
        """Back to the trained weights."""
        self.classifier.load_state_dict(self._after)

    def drawn(self, split: str, count: int) -> Positions:
        """Positions of ``count`` images of a split: see :meth:`ImageDataModule.drawn`."""
        return self._parts.data.drawn(split, count)

    def labels(self, split: str) -> NDArray[np.int64]:
        """True classes of all images of a split (N,)."""
        return self._parts.data.labels(split)

    def images(self, split: str, positions: Positions) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] and their classes."""
        found = list(self._batches(split, positions))
        return torch.cat([images for images, _ in found]), torch.cat([t for _, t in found])

    def answers(self, split: str, positions: Positions) -> Answers:
        """Of the trained classifier about the images at ``positions``; asked once."""
        key = split, positions.tobytes()
        if key not in self._known:
            self._known[key] = self._answers(*self._source_logits(split, positions))
        return self._known[key]

    def first_answers(self, split: str, positions: Positions) -> Answers:
        """As before training: the prompt at its start, the mapping counted on all its images."""
        self.classifier.load_state_dict(self._before)
        if not self.classifier.fitted:
            self.classifier.refit_unchecked(self._batches("train", None))
        found = self._answers(*self._source_logits(split, positions))
        self.restore()
        return found

    @torch.inference_mode()
    def counts(self, split: str) -> Tensor:
        """d[s, t] (S, T): how many images of class t are predicted as source class s."""
        backbone, transform = self.classifier.backbone, self.classifier.input_transform
        shape = len(backbone.class_names), len(self.class_names)
        found = torch.zeros(shape, dtype=torch.int64, device=self.device)
        for images, targets in self._batches(split, None):
            add_pairs(found, backbone(transform(images)).argmax(1), targets)
        return found.cpu()

    @torch.inference_mode()
    def without_prompt(self, split: str, positions: Positions) -> tuple[Tensor, Tensor, Tensor]:
        """Source logits, features before the last layer, and classes of the bare images."""
        backbone, transform = self.classifier.backbone, self.classifier.input_transform
        found = []
        for images, targets in self._batches(split, positions):
            seen = transform.bare(images)
            found.append((backbone(seen), backbone.features(seen), targets))
        logits, features, targets = (torch.cat(part).cpu() for part in zip(*found, strict=True))
        return logits, features, targets

    def _batches(self, split: str, positions: Positions | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Images in [0, 1] and their classes; ``None``: of a whole split."""
        for batch in self._parts.data.plain_batches(split, self.device, positions):
            yield batch["image"], batch["target"]

    @torch.inference_mode()
    def _answers(self, source: Tensor, targets: Tensor) -> Answers:
        return Answers(source.cpu(), self.classifier.mapped(source).cpu(), targets.cpu())

    @torch.inference_mode()
    def _source_logits(self, split: str, positions: Positions) -> tuple[Tensor, Tensor]:
        pairs = [(self.classifier.source(x), t) for x, t in self._batches(split, positions)]
        return torch.cat([logits for logits, _ in pairs]), torch.cat([t for _, t in pairs])
