"""What a checkpoint belongs to: only the same training goes on from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smm_lightning.classifier import ReprogrammedClassifier
from smm_lightning.errors import Problems
from smm_lightning.run.checkpoint import SCHEMA, require_schema
from smm_lightning.run.images import changed_images
from smm_lightning.training.training import Training


@dataclass(frozen=True)
class Provenance:
    """Where a training comes from, beside its classifier and its settings.

    Args:
        identity: what a checkpoint must agree with to be continued, such as dataset and method.
        images: what the images of each split are; a checkpoint of others is refused, too.
    """

    identity: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)

    def noted(self, classifier: ReprogrammedClassifier, training: Training) -> dict[str, Any]:
        """What a checkpoint says of itself.

        Args:
            classifier: that is trained.
            training: how.
        """
        identity = {**self._identity(classifier), **self._images(classifier)}
        return {"identity": identity, "parts": dict(classifier.nodes), "training": training.nodes}

    def require_same(
        self,
        checkpoint: Mapping[str, Any],
        classifier: ReprogrammedClassifier,
        training: Training,
    ) -> None:
        """Refuse the checkpoint of another training.

        Args:
            checkpoint: with what :meth:`noted` gave when it was written.
            classifier: that is trained now.
            training: how.

        Raises:
            UserError: A line for everything that differs.
        """
        require_schema(checkpoint, "ckpt_path", "force=true begins anew.")
        then, problems = checkpoint["identity"], Problems()
        for key, now in self._identity(classifier).items():
            what = f"the checkpoint has another {key} than this run's {now!r}"
            problems.require(then.get(key) == now, "ckpt_path", what, then.get(key))
        training.require_continuation_of(checkpoint.get("training") or {}, problems)
        changed = "" if problems.lines else changed_images(then, self._images(classifier))
        if changed:
            what = f"the checkpoint was made with other images: {changed}"
            problems.add("ckpt_path", what, hint="force=true, without ckpt_path, begins anew.")
        problems.raise_if_any()

    def _identity(self, classifier: ReprogrammedClassifier) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            **self.identity,
            "refresh": classifier.label_mapping.refresh,
            "temperature": classifier.label_mapping.temperature,
            "backbone_sha256": classifier.backbone.sha256,
        }

    def _images(self, classifier: ReprogrammedClassifier) -> dict[str, Any]:
        return {"class_names": classifier.class_names, "images": self.images}
