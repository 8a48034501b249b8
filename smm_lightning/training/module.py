"""The training of a reprogrammed classifier under Lightning."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from typing_extensions import override

from smm_lightning.classifier import ReprogrammedClassifier
from smm_lightning.dataset.batch import pair_of
from smm_lightning.device import AUTOCAST, compiles_on, fuses_attention
from smm_lightning.errors import problem
from smm_lightning.method import use_kernel
from smm_lightning.training.compiled import Compiled, compiled_for_training
from smm_lightning.training.finite_loss import FiniteLoss
from smm_lightning.training.mapping_refresh import MappingRefresh
from smm_lightning.training.metrics import SplitMetrics
from smm_lightning.training.micro_batch import MicroBatches, Step, step_in_parts, trial_step
from smm_lightning.training.optimizer import require_state_of, settings_of, take_over
from smm_lightning.training.provenance import Provenance
from smm_lightning.training.schedule import Constant
from smm_lightning.training.training import Training
from smm_lightning.training.training_data import counted_pairs, full_batches, split_of


class ReprogrammingModule(L.LightningModule):
    """Learns the prompt of a reprogrammed classifier and, by counting, its label mapping.

    Minimises the mean loss of f_out(f_P(f_in(x))) (paper equation 1). Before an epoch the mapping
    is taken anew if it asks for that (paper algorithm 1). Batches are ours or pairs of images
    (B, 3, input_size, input_size) in [0, 1] and targets (B,). Where nothing is trained, as with a
    counted mapping and no prompt, one epoch counts and measures.

    Args:
        classifier: what is trained.
        training: optimiser, schedule and loss.
        provenance: what a checkpoint says of where it comes from, and is held against.
        compiled: run f_P(f_in(x)) through ``torch.compile``; ``None``: see :mod:`device`.
        fused_attention: of a transformer; ``None``: see :mod:`device`.
        full_evaluation: test and count without autocast, whatever training computes in.
        micro_batches: how many images pass the network at a time in training; in parts, nothing is
            compiled.
    """

    def __init__(
        self,
        classifier: ReprogrammedClassifier,
        training: Training,
        provenance: Provenance | None = None,
        *,
        compiled: bool | None = None,
        fused_attention: bool | None = None,
        full_evaluation: bool = False,
        micro_batches: MicroBatches | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.how = training  # not "training", which is nn.Module's flag
        self.loss = training.loss  # a module's weights follow to the device
        self.provenance = provenance or Provenance()
        self.compiled = compiled
        self.fused_attention = fused_attention
        self.full_evaluation = full_evaluation
        self.micro_batches = micro_batches or MicroBatches()
        self.metrics = SplitMetrics(len(classifier.class_names))
        self._refresh = MappingRefresh(classifier)
        self._finite = FiniteLoss()
        self._compiled: Compiled | None = None
        # Lightning and DDP want a parameter.
        trains = bool(classifier.parameter_groups())
        self.idle = None if trains else torch.nn.Parameter(torch.zeros(()))
        self.was_compiled = False
        self.tested: Literal["test", "best"] = "test"  # whose numbers a test is

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, input_size, input_size) in [0, 1] to target logits (B, T)."""
        return self.classifier.mapped(self._source(images))

    def _source(self, images: Tensor) -> Tensor:
        return (self._compiled or self.classifier.source)(images)

    @override
    def setup(self, stage: str) -> None:
        """Train, test and count with the mask generator's fast kernel, on every device alike."""
        use_kernel(self.classifier, fast=True)

    @override
    def teardown(self, stage: str) -> None:
        """Leave plain layers to whoever uses the classifier, and nothing that copies share."""
        use_kernel(self.classifier, fast=False)
        self._compiled = None

    @override
    def on_fit_start(self) -> None:
        """Choose what pays on this device."""
        if self.idle is not None:  # a second epoch would repeat the first
            trainer = self.trainer
            self._length = trainer.fit_loop.max_epochs, trainer.check_val_every_n_epoch
            trainer.fit_loop.max_epochs = trainer.check_val_every_n_epoch = 1
        precision = str(self.trainer.precision)
        fused = fuses_attention(self.device, precision, requested=self.fused_attention)
        self.classifier.backbone.fuse_attention(fused=fused)
        sizes = full_batches(self.trainer)
        whole = not self.micro_batches.active
        if whole and sizes and compiles_on(self.device, requested=self.compiled):
            with self.trainer.precision_plugin.forward_context():
                self._compiled = compiled_for_training(self.classifier, sizes)
        self.was_compiled = self._compiled is not None

    @override
    def on_fit_end(self) -> None:
        """Leave the trainer as it was."""
        if self.idle is not None:
            self.trainer.fit_loop.max_epochs, self.trainer.check_val_every_n_epoch = self._length

    @override
    def on_train_start(self) -> None:
        """Where a checkpoint of other settings was read, go on with those of this training."""
        require_state_of(self.trainer.optimizers[0])
        if self.trainer.global_step and not self.classifier.fitted:
            raise problem("ckpt_path", "has no label mapping", hint="force=true begins anew.")
        take_over(self.trainer.optimizers[0], self.lr_schedulers(), self._settings)
        if self.trainer.ckpt_path and any(map(_has_stopped, self.trainer.callbacks)):  # type: ignore[attr-defined]
            self.print("EarlyStopping had ended this training; without it, it would go on.")
            self.trainer.should_stop = True  # which Lightning forgets

    @override
    def on_train_epoch_start(self) -> None:
        """Take the mapping anew, where it asks for that."""
        self.metrics.reset("train")  # sums of a checkpoint of the last epoch's end
        self._refresh.begin_epoch(
            self.current_epoch,
            lambda: counted_pairs(self.trainer, self.device),
            self._over_ranks,
            self._precision_of_tests(self.trainer.precision_plugin.forward_context()),
        )

    @override
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of one batch.

        Raises:
            UserError: If a loss is not finite; see :class:`FiniteLoss`.
        """
        images, targets = pair_of(batch)
        loss, source, logits = self._step(images, targets)
        # refresh=running counts what training has seen anyway, instead of a pass of its own.
        self._refresh.observe(source, targets)
        self._note("train", logits, targets, loss)
        optimizer, last = self.trainer.optimizers[0], self.trainer.is_last_batch
        self._finite.watch(loss, optimizer, self.current_epoch, batch_idx, last=last)
        if last:  # what is logged earlier is lost when a run goes on in the middle of an epoch
            self.log_dict(
                self._refresh.log, on_step=False, on_epoch=True, batch_size=1, sync_dist=True
            )
        if self.device.type == "cpu" and self.trainer.progress_bar_callback is not None:
            # In the bar, a number makes a GPU wait for the host in every step.
            self.log("loss", loss.detach(), prog_bar=True, logger=False)
        weight = batch.get("loss_weight", 1) if isinstance(batch, Mapping) else 1
        if self.idle is not None:
            loss = loss + 0 * self.idle
        return loss if weight == 1 else loss * weight

    def _step(self, images: Tensor, targets: Tensor) -> Step:
        """Of a training batch, as a whole or in parts."""
        if not self.micro_batches.active:
            source = self._source(images)
            logits = self.classifier.mapped(source)
            return Step(self.loss(logits, targets), source, logits)
        classifier, loss = self.classifier, self.loss
        trial = partial(trial_step, classifier, loss, images, targets)
        leads = self.trainer.is_global_zero and not self.trainer.fast_dev_run  # type: ignore[attr-defined]
        size = self.micro_batches.settle(trial, len(images), self._lowest, leads=leads)
        prompted = classifier.input_transform(images)
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.scale(torch.ones((), device=self.device))
        return step_in_parts(classifier, loss, prompted, targets, size, scale)

    @override
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Accuracy on the split of this loader; nothing before there is a mapping."""
        if self.classifier.fitted:
            self._evaluate(split_of(self.trainer, dataloader_idx), batch)

    @override
    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Accuracy on the test images."""
        self._evaluate(self.tested, batch)

    @override
    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Confidences (B, T) of images, with or without targets beside them."""
        alone = isinstance(batch, list | tuple) and len(batch) == 1
        images = batch if isinstance(batch, Tensor) else (batch if alone else pair_of(batch))[0]
        return self.classifier.probabilities(images)

    @override
    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimiser; its rates step once an epoch."""
        optimizer: Optimizer
        schedule: LRScheduler
        fused = self.trainer.gradient_clip_val is None  # Lightning refuses to clip a fused one's
        if self.idle is None:
            optimizer, schedule = self.how.build(self.classifier.parameter_groups(), fused=fused)
        else:
            optimizer = SGD([{"params": [self.idle], "name": "nothing"}], lr=0.0)
            schedule = Constant().build(optimizer, [1.0])
        self._settings = settings_of(optimizer)
        lr_scheduler = {"scheduler": schedule, "interval": "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": lr_scheduler}  # type: ignore[typeddict-item]

    @override
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down what this checkpoint belongs to, and the sums and counts of all ranks.

        Lightning's own epoch means are wrong after it went on in the middle of an epoch.
        """
        precision = str(self.trainer.precision)
        checkpoint.update(self.provenance.noted(self.classifier, self.how, precision))
        checkpoint["mapping"] = self._refresh.state(self._over_ranks)
        checkpoint["sums"] = self.metrics.sums("train", self._over_ranks)

    @override
    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the sums and counts of a checkpoint of this training.

        Raises:
            UserError: If it is of another one; see :meth:`Provenance.require_same`.
        """
        fits = self._trainer is not None and self.trainer.state.fn == "fit"
        precision = str(self.trainer.precision) if fits else None  # tests may take another one
        self.provenance.require_same(checkpoint, self.classifier, self.how, precision)
        schedules = checkpoint.get("lr_schedulers") or []
        if any(callable(getattr(LRScheduler, name, None)) for state in schedules for name in state):
            raise problem("ckpt_path", "its schedule would replace methods")
        # What is stored is the sum over all ranks.
        leads = self._trainer is None or self.trainer.is_global_zero
        self._refresh.load(checkpoint["mapping"], leads=leads)
        self.metrics.load_sums("train", checkpoint["sums"], leads=leads)

    def describe(self) -> dict[str, Any]:
        """Facts for ``result.json``: device, precision, and those of the classifier."""
        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "precision": str(self.trainer.precision),
            "evaluation_precision": self._evaluated_in(),
            "compiled": self.was_compiled,
            "micro_batch": self.micro_batches.size,
            **self.classifier.facts(),
        }

    def _evaluated_in(self) -> str:
        precision = str(self.trainer.precision)
        return "32-true" if self.full_evaluation and precision in AUTOCAST else precision

    def _evaluate(self, split: str, batch: Any) -> None:
        images, targets = pair_of(batch)
        with self._precision_of_tests(nullcontext()):  # Lightning has entered training's
            logits = self(images)
        # Of every loss the same number, so that losses of runs can be compared.
        self._note(split, logits, targets, cross_entropy(logits, targets))

    def _precision_of_tests(
        self, usual: AbstractContextManager[Any]
    ) -> AbstractContextManager[Any]:
        """What tests and counts compute in, where ``usual`` is training's."""
        full = torch.autocast(self.device.type, enabled=False)
        return full if self.full_evaluation else usual

    def _note(self, split: str, logits: Tensor, targets: Tensor, loss: Tensor) -> None:
        """Gather ``<split>/acc`` and ``<split>/loss``."""
        self.metrics.update(split, logits, targets, loss)
        for name, metric in self.metrics.of(split).items():
            self.log(
                f"{split}/{name}", metric, on_step=False, on_epoch=True, add_dataloader_idx=False
            )

    def _lowest(self, number: int) -> int:
        """Over all ranks."""
        lowest: Tensor = self.trainer.strategy.reduce(
            torch.tensor(number, device=self.device), reduce_op="min"
        )
        return int(lowest)

    def _over_ranks(self, statistics: Tensor) -> Tensor:
        # A copy: some strategies reduce in place, and every rank would then hold the sum.
        summed: Tensor = self.trainer.strategy.reduce(statistics.clone(), reduce_op="sum")
        return summed


def _has_stopped(callback: Callback) -> bool:
    """Whether a callback ended the training that a checkpoint is of."""
    stopped = getattr(callback, "stopping_reason", EarlyStoppingReason.NOT_STOPPED)
    return stopped is not EarlyStoppingReason.NOT_STOPPED
