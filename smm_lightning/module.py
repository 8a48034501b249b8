"""The training shell: f_out(f_P(f_in(x))) under Lightning."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Self, cast

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from smm_lightning.backbone import FrozenBackbone
from smm_lightning.compiled import Compiled
from smm_lightning.dataset import Batch, ImageDataModule
from smm_lightning.device import at_least_float32, compiles_on, fuses_attention
from smm_lightning.errors import Problems
from smm_lightning.finite_loss import FiniteLoss
from smm_lightning.mapping import LabelMapping, count_pairs
from smm_lightning.method import InputTransform
from smm_lightning.optimizer import settings_of, take_over
from smm_lightning.run.images import changed_images
from smm_lightning.training import Training

SCHEMA = 5  # of the checkpoint; raise it when its content changes


class ReprogrammingModule(L.LightningModule):
    """Learns the input transform of a frozen backbone and, by counting, its label mapping.

    Minimises the mean cross-entropy of f_out(f_P(f_in(x))) (paper equation 1). Before an epoch the
    mapping is refitted if it asks for that (paper algorithm 1).

    Args:
        input_transform: f_in, trained.
        backbone: f_P, frozen and not in the checkpoint.
        label_mapping: f_out.
        training: optimiser, schedule and loss.
        class_names: of the target classes.
        identity: what a checkpoint must agree with to be continued, such as dataset and method.
        images: what the images of each split are; a checkpoint of others is refused, too.
        compiled: run f_P(f_in(x)) through ``torch.compile``; ``None``: see :mod:`device`.
        fused_attention: of a transformer; ``None``: see :mod:`device`.
    """

    def __init__(
        self,
        input_transform: InputTransform,
        backbone: FrozenBackbone,
        label_mapping: LabelMapping,
        training: Training,
        class_names: list[str],
        identity: dict[str, Any],
        images: dict[str, Any],
        *,
        compiled: bool | None = None,
        fused_attention: bool | None = None,
    ) -> None:
        super().__init__()
        self.input_transform = input_transform
        self.backbone = backbone
        self.label_mapping = label_mapping
        # Not "training", which is nn.Module's flag.
        self.how = training
        self.loss = training.loss  # a module's weights follow to the device
        self.class_names = class_names
        self.identity = {
            "schema": SCHEMA,
            **identity,
            "backbone_sha256": backbone.sha256,
        }
        self.images = {"class_names": class_names, "images": images}
        self.parts: dict[str, Any] = {}
        self.compiled = compiled
        self.fused_attention = fused_attention
        self._compiled: Compiled | None = None
        self._finite = FiniteLoss()
        splits = ("train", "test", "val")
        classes = len(class_names)
        # Their checks of values would make the host wait for a GPU in every step.
        self.accuracies = torch.nn.ModuleDict(
            {
                f"{split}_acc": MulticlassAccuracy(classes, average="micro", validate_args=False)
                for split in splits
            }
        )
        self.losses = torch.nn.ModuleDict(
            {f"{split}_loss": MeanLoss(nan_strategy="disable") for split in splits}
        )
        # Predictions of the training steps, for refresh "running". No buffer: DDP would overwrite
        # it with rank 0's.
        self._counts = self._no_counts()
        self._refit: dict[str, float] = {}  # of this epoch: sources changed, seconds

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, input_size, input_size) in [0, 1] to target logits (B, T)."""
        return cast("Tensor", self.label_mapping(self.source_logits(images)))

    def source_logits(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to the backbone's logits (B, source classes), before the mapping."""
        network = self._compiled or self._source_logits
        return network(images)

    def _source_logits(self, images: Tensor) -> Tensor:
        return cast("Tensor", self.backbone(self.input_transform(images)))

    def on_fit_start(self) -> None:
        """Choose what pays on this device."""
        self._counts = self._counts.to(self.device)
        precision = str(self.trainer.precision)
        fused = fuses_attention(self.device, precision, requested=self.fused_attention)
        self.backbone.fuse_attention(fused=fused)
        if compiles_on(self.device, requested=self.compiled):
            self._compile()

    def on_train_start(self) -> None:
        """Where a checkpoint of other settings was read, go on with those of this training."""
        take_over(self.trainer.optimizers[0], self.lr_schedulers(), self._settings)

    def on_train_epoch_start(self) -> None:
        """Count predictions and refit the mapping, where it asks for that."""
        for metric in self._train_metrics.values():  # sums of a checkpoint of the last epoch's end
            metric.reset()
        start = time.perf_counter()
        counts = self._next_counts()
        changed = 0 if counts is None else self.label_mapping.refit(counts)
        seconds = time.perf_counter() - start
        self._refit = {"mapping/changed": float(changed), "time/mapping_s": seconds}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch.

        Raises:
            UserError: If a loss is not finite; see :class:`FiniteLoss`.
        """
        source_logits = self.source_logits(batch["image"])
        if self.label_mapping.refresh == "running":
            self._counts += self._count(source_logits, batch["target"])
        loss = self._gather("train", source_logits, batch["target"])
        optimizer, last = self.trainer.optimizers[0], self.trainer.is_last_batch
        self._finite.watch(loss, optimizer, self.current_epoch, batch_idx, last=last)
        if last:  # what is logged earlier is lost when a run goes on in the middle of an epoch
            self.log_dict(self._refit, on_step=False, on_epoch=True, batch_size=1)
        if self.device.type == "cpu" and self.trainer.progress_bar_callback is not None:
            # In the bar, a number makes a GPU wait for the host in every step.
            self.log("loss", loss.detach(), prog_bar=True, logger=False)
        return loss if batch["share"] == 1 else loss * batch["share"]

    def validation_step(
        self,
        batch: Batch,
        batch_idx: int,  # noqa: ARG002 - Lightning's signature
        dataloader_idx: int = 0,
    ) -> None:
        """Accuracy on the split of this loader."""
        split = self._datamodule.evaluation_splits[dataloader_idx]
        self._gather(split, self.source_logits(batch["image"]), batch["target"])

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - likewise
        """Accuracy on the test images."""
        self._gather("test", self.source_logits(batch["image"]), batch["target"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimiser; its rates step once an epoch."""
        fused = self.trainer.gradient_clip_val is None
        groups = self.input_transform.parameter_groups()
        optimizer, schedule = self.how.build(groups, fused=fused)
        self._settings = settings_of(optimizer)
        lr_scheduler = {"scheduler": schedule, "interval": "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": lr_scheduler}  # type: ignore[typeddict-item]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down what this checkpoint belongs to, and the sums and counts of all ranks.

        Lightning's own epoch means are wrong after it went on in the middle of an epoch. Of the
        counts most cells are zero: a dense S x T table would double the size of a checkpoint.
        """
        checkpoint["identity"] = {**self.identity, **self.images}
        checkpoint["parts"] = self.parts
        checkpoint["training"] = self.how.nodes
        checkpoint["refit"] = self._refit
        checkpoint["sums"] = {
            name: {state: self._over_ranks(value) for state, value in _sums(metric).items()}
            for name, metric in self._train_metrics.items()
        }
        if self.label_mapping.refresh == "running":
            counts = self._over_ranks(self._counts).flatten()
            cells = counts.nonzero().squeeze(1)
            checkpoint["counts"] = {"cells": cells.int(), "counts": counts[cells].int()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another run.

        Raises:
            UserError: A line for everything that differs.
        """
        found = checkpoint.get("identity", {})
        problems = Problems()
        for key, own in self.identity.items():
            problems.require(
                found.get(key) == own,
                "ckpt_path",
                f"the checkpoint has another {key} than this run's {own!r}",
                found.get(key),
            )
        self.how.require_continuation_of(checkpoint.get("training") or {}, problems)
        changed = "" if problems.found else changed_images(found, self.images)
        problems.require(
            not changed,
            "ckpt_path",
            f"the checkpoint was made with other images: {changed}",
            cure="force=true, without ckpt_path, begins anew.",
        )
        problems.raise_if_any()
        self._refit = checkpoint["refit"]
        leads = self.trainer.is_global_zero  # what is stored is the sum over all ranks
        for name, metric in self._train_metrics.items():
            for state, value in checkpoint["sums"][name].items():
                own = getattr(metric, state)
                setattr(metric, state, value.to(own) if leads else torch.zeros_like(own))
        if "counts" in checkpoint:
            stored = checkpoint["counts"]
            counts = self._no_counts()
            if leads:
                counts.view(-1)[stored["cells"].cpu().long()] = stored["counts"].cpu().long()
            self._counts = counts

    def describe(self) -> dict[str, Any]:
        """Facts for ``result.json``: parameters, device, and the label mapping with names."""
        trained = self.input_transform.parameter_groups()
        counts = {name: sum(p.numel() for p in group) for name, group in trained.items()}
        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "precision": str(self.trainer.precision),
            "compiled": self._compiled is not None,
            "params/trainable": sum(counts.values()),
            **{f"params/{name}": count for name, count in counts.items()},
            "params/frozen": self.backbone.parameter_count,
            **self.input_transform.facts(),
            "mapping": self.label_mapping.table(self.class_names, self.backbone.class_names),
        }

    def _gather(self, split: str, source_logits: Tensor, targets: Tensor) -> Tensor:
        """Gather ``<split>/acc`` and ``<split>/loss``; return the loss.

        In training it is what is minimised, elsewhere the mean cross-entropy.
        """
        logits = self.label_mapping(source_logits)
        loss = (self.loss if split == "train" else cross_entropy)(logits, targets)
        accuracy = cast("MulticlassAccuracy", self.accuracies[f"{split}_acc"])
        mean_loss = cast("MeanMetric", self.losses[f"{split}_loss"])
        accuracy.update(logits.detach(), targets)
        # With its check switched off, torchmetrics 1.9 forgets the weight that one may give it.
        mean_loss.update(loss.detach().expand(len(targets)))
        for name, metric in (("acc", accuracy), ("loss", mean_loss)):
            self.log(
                f"{split}/{name}", metric, on_step=False, on_epoch=True, add_dataloader_idx=False
            )
        return loss

    def _next_counts(self) -> Tensor | None:
        """D (S, T) over all ranks for the next mapping; ``None`` where the mapping stays."""
        refresh = self.label_mapping.refresh
        if refresh == "never" or (refresh == "once" and self.current_epoch > 0):
            return None
        counts = self._over_ranks(self._counts)
        if not counts.any():  # always, unless the steps of the last epoch were counted
            counts = self._over_ranks(self._count_predictions())
        self._counts.zero_()
        return counts

    def _count(self, source_logits: Tensor, targets: Tensor) -> Tensor:
        """D (S, T) of one batch."""
        classes = len(self.class_names)
        return count_pairs(source_logits.argmax(1), targets, source_logits.shape[1], classes)

    @torch.inference_mode()
    def _count_predictions(self) -> Tensor:
        """D (S, T) over this rank's training images of this epoch, in eval mode."""
        was_training = self.input_transform.training
        self.input_transform.eval()
        counts = torch.zeros_like(self._counts)
        with self.trainer.precision_plugin.forward_context():
            for batch in self._datamodule.mapping_batches(self.device):
                counts += self._count(self.source_logits(batch["image"]), batch["target"])
        self.input_transform.train(was_training)
        return counts

    def _no_counts(self) -> Tensor:
        sources = len(self.backbone.class_names)
        return torch.zeros(sources, len(self.class_names), dtype=torch.int64)

    def _over_ranks(self, counts: Tensor) -> Tensor:
        return cast("Tensor", self.trainer.strategy.reduce(counts.clone(), reduce_op="sum"))

    def _compile(self) -> None:
        """Compile before the first epoch, with a batch of noise that leaves no trace."""
        compiled = Compiled(self._source_logits, self._datamodule.full_batches())
        state = {name: value.clone() for name, value in self.input_transform.state_dict().items()}
        side = self.input_transform.input_size
        size = min(self._datamodule.full_batches())  # that of training
        noise = torch.rand(size, 3, side, side, device=self.device)
        with torch.no_grad():
            for weights in self._trained:  # without a pattern, the mask has no gradient
                weights.add_(torch.rand_like(weights), alpha=0.1)
        with self.trainer.precision_plugin.forward_context():
            if compiled.works_on(noise, self._trained):
                self._compiled = compiled
        self.input_transform.load_state_dict(state)

    @property
    def _trained(self) -> list[Parameter]:
        groups = self.input_transform.parameter_groups()
        return [weights for group in groups.values() for weights in group]

    @property
    def _train_metrics(self) -> dict[str, Metric]:
        metrics = {"acc": self.accuracies["train_acc"], "loss": self.losses["train_loss"]}
        return cast("dict[str, Metric]", metrics)

    @property
    def _datamodule(self) -> ImageDataModule:
        return cast("ImageDataModule", self.trainer.datamodule)  # type: ignore[attr-defined]


class MeanLoss(MeanMetric):
    """A mean that is summed up in float32 where the network is in 16 bits."""

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Self:
        super()._apply(at_least_float32(fn), exclude_state)
        return self


def _sums(metric: Metric) -> dict[str, Tensor]:
    """What a metric has summed up since its last reset."""
    states = cast("dict[str, Tensor]", metric.metric_state)  # ours hold no lists
    return {name: value.detach() for name, value in states.items()}
