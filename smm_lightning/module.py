"""The training shell: f_out(f_P(f_in(x))) under Lightning."""

import time
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from smm_lightning.backbone import FrozenBackbone
from smm_lightning.dataset import Batch, ImageDataModule
from smm_lightning.errors import Problems, problem
from smm_lightning.mapping import LabelMapping, count_pairs
from smm_lightning.method import InputTransform
from smm_lightning.optimizer import OptimizerSpec

SCHEMA = 1  # of the checkpoint; raise it when its content changes


class ReprogrammingModule(L.LightningModule):
    """Learns the input transform of a frozen backbone and, by counting, its label mapping.

    Minimises the mean cross-entropy of f_out(f_P(f_in(x))) (paper equation 1). Before an epoch the
    mapping is refitted if it asks for that (paper algorithm 1).

    Args:
        input_transform: f_in, trained.
        backbone: f_P, frozen and not in the checkpoint.
        label_mapping: f_out.
        optimizer: rates and milestones.
        class_names: of the target classes.
        identity: what a checkpoint must agree with to be continued, such as dataset and method.
    """

    def __init__(
        self,
        input_transform: InputTransform,
        backbone: FrozenBackbone,
        label_mapping: LabelMapping,
        optimizer: OptimizerSpec,
        class_names: list[str],
        identity: dict[str, Any],
    ) -> None:
        super().__init__()
        self.input_transform = input_transform
        self.backbone = backbone
        self.label_mapping = label_mapping
        self.optimizer = optimizer
        self.class_names = class_names
        self.identity = {
            "schema": SCHEMA,
            **identity,
            "backbone_sha256": backbone.sha256,
            "class_names": class_names,
        }
        splits = ("train", "test", "val")
        classes = len(class_names)
        self.accuracies = torch.nn.ModuleDict(
            {split + "_acc": MulticlassAccuracy(classes, average="micro") for split in splits}
        )
        self.losses = torch.nn.ModuleDict({split + "_loss": MeanMetric() for split in splits})

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, input_size, input_size) in [0, 1] to target logits (B, T)."""
        return cast("Tensor", self.label_mapping(self.source_logits(images)))

    def source_logits(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to the backbone's logits (B, source classes), before the mapping."""
        return cast("Tensor", self.backbone(self.input_transform(images)))

    def on_train_epoch_start(self) -> None:
        """Count predictions and refit the mapping, where it asks for that."""
        refresh = self.label_mapping.refresh
        start = time.perf_counter()
        changed = 0
        if refresh == "epoch" or (refresh == "once" and self.current_epoch == 0):
            changed = self.label_mapping.refit(self._count_predictions())
        self.log("mapping/changed", float(changed))
        self.log("time/mapping_s", time.perf_counter() - start)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch.

        Raises:
            UserError: If the loss is not finite; the optimiser has not stepped then.
        """
        logits, loss = self._predict(batch)
        if not torch.isfinite(loss):
            rates = {
                group["name"]: group["lr"] for group in self.trainer.optimizers[0].param_groups
            }
            raise problem(
                "training",
                f"the loss is {loss.item()} in epoch {self.current_epoch}, step {batch_idx}, at "
                f"learning rates {rates}",
                cure="Lower optimizer.pattern.lr or optimizer.mask_generator.lr, or use "
                "trainer.precision=32-true.",
            )
        accuracy = self._gather("train", logits, loss, batch["target"])
        self.log_dict({"loss": loss.detach(), "acc": accuracy}, prog_bar=True, logger=False)
        return loss

    def validation_step(
        self,
        batch: Batch,
        batch_idx: int,  # noqa: ARG002 - Lightning's signature
        dataloader_idx: int = 0,
    ) -> None:
        """Accuracy on the split of this loader."""
        split = self._datamodule.evaluation_splits[dataloader_idx]
        self._gather(split, *self._predict(batch), batch["target"])

    def test_step(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002 - likewise
        """Accuracy on the test images."""
        self._gather("test", *self._predict(batch), batch["target"])

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One Adam; its rates step once an epoch."""
        adam, schedule = self.optimizer.build(self.input_transform.parameter_groups())
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down what this checkpoint belongs to."""
        checkpoint["identity"] = self.identity

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
        problems.raise_if_any()

    def describe(self) -> dict[str, Any]:
        """Facts for ``result.json``: parameters, device, and the label mapping with names."""
        trained = self.input_transform.parameter_groups()
        counts = {name: sum(p.numel() for p in group) for name, group in trained.items()}
        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "params/trainable": sum(counts.values()),
            **{f"params/{name}": count for name, count in counts.items()},
            "params/frozen": self.backbone.parameter_count,
            "mapping": self.label_mapping.table(self.class_names, self.backbone.class_names),
        }

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Target logits (B, T) of a batch, and its mean cross-entropy."""
        logits = self(batch["image"])
        return logits, cross_entropy(logits, batch["target"])

    def _gather(self, split: str, logits: Tensor, loss: Tensor, targets: Tensor) -> Tensor:
        """Gather ``<split>/acc`` and ``<split>/loss``; return the accuracy of the batch."""
        accuracy = cast("MulticlassAccuracy", self.accuracies[f"{split}_acc"])
        mean_loss = cast("MeanMetric", self.losses[f"{split}_loss"])
        batch_accuracy: Tensor = accuracy(logits.detach(), targets)
        mean_loss(loss.detach(), len(targets))
        for name, metric in (("acc", accuracy), ("loss", mean_loss)):
            self.log(
                f"{split}/{name}", metric, on_step=False, on_epoch=True, add_dataloader_idx=False
            )
        return batch_accuracy

    @torch.inference_mode()
    def _count_predictions(self) -> Tensor:
        """D (S, T) over the training images of this epoch, in eval mode, summed over all ranks."""
        was_training = self.input_transform.training
        self.input_transform.eval()
        counts: Tensor | None = None
        for batch in self._datamodule.mapping_batches(self.device):
            logits = self.source_logits(batch["image"])
            found = count_pairs(
                logits.argmax(1), batch["target"], logits.shape[1], len(self.class_names)
            )
            counts = found if counts is None else counts + found
        self.input_transform.train(was_training)
        assert counts is not None
        return cast("Tensor", self.trainer.strategy.reduce(counts, reduce_op="sum"))

    @property
    def _datamodule(self) -> ImageDataModule:
        return cast("ImageDataModule", self.trainer.datamodule)  # type: ignore[attr-defined]
