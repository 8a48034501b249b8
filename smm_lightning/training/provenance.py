"""What a checkpoint belongs to: only the same training goes on from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smm_lightning.classifier import ReprogrammedClassifier
from smm_lightning.errors import Problems
from smm_lightning.run.checkpoint import SCHEMA, require_schema
from smm_lightning.run.images import changed_images
from smm_lightning.training.training import Training

_PARTS = ("method", "mapping", "adapter")
_MAY_CHANGE = {"start", "refit_until"}  # how a training began, and when it counts again


@dataclass(frozen=True)
class Provenance:
    """Where a training comes from, beside its classifier and its settings.

    Args:
        identity: what a checkpoint must agree with to be continued, such as dataset and method.
        images: what the images of each split are; a checkpoint of others is refused, too.
        run_key: of the run, where there is one; its own checkpoints are told by it.
    """

    identity: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)
    run_key: str | None = None

    def noted(
        self, classifier: ReprogrammedClassifier, training: Training, precision: str
    ) -> dict[str, Any]:
        """What a checkpoint says of itself.

        Args:
            classifier: that is trained.
            training: how.
            precision: that it computes in, of which ``auto`` is not the name.
        """
        identity = {**self._identity(classifier), **self._images(classifier)}
        return {
            "identity": {**identity, "precision": precision},
            "parts": dict(classifier.nodes),
            "training": training.nodes,
            "run_key": self.run_key,
        }

    def require_same(
        self,
        checkpoint: Mapping[str, Any],
        classifier: ReprogrammedClassifier,
        training: Training,
        precision: str | None,
    ) -> None:
        """Refuse the checkpoint of another training.

        Args:
            checkpoint: with what :meth:`noted` gave when it was written.
            classifier: that is trained now.
            training: how.
            precision: that it computes in now, if the training goes on.

        Raises:
            UserError: A line for everything that differs.
        """
        require_schema(checkpoint, "ckpt_path", "force=true begins anew.")
        then, problems = checkpoint["identity"], Problems()
        own = {**self._identity(classifier), "precision": precision or then.get("precision")}
        for key, now in own.items():
            what = f"the checkpoint has another {key} than this run's {now!r}"
            hint = f"Use trainer.precision={then.get(key)}." if key == "precision" else ""
            problems.require(then.get(key) == now, "ckpt_path", what, then.get(key), hint)
        if not problems.lines:
            _require_same_parts(checkpoint["parts"], classifier.nodes, problems)
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


def _require_same_parts(
    then: Mapping[str, Any], now: Mapping[str, Any], problems: Problems
) -> None:
    """Weights fit into a part of another patch size, say, and mean nothing there."""
    for group in _PARTS:
        if group not in then or group not in now:  # a plain Lightning training notes none
            continue
        for name in sorted({*then[group], *now[group]} - _MAY_CHANGE):
            was, value = then[group].get(name), now[group].get(name)
            what = f"the checkpoint has another {group}.{name} than this run's {value!r}"
            problems.require(_equal(was, value), "ckpt_path", what, was)


def _equal(one: Any, other: Any) -> bool:
    """What cannot be compared, such as tensors, which a class of one's own may take, passes."""
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):
        return True
