"""Our side: the real Trainer, datamodule and module, with a stopwatch."""

import logging
import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from smm_lightning.benchmark.measure import now, peak_memory
from smm_lightning.benchmark.setting import Setting, parts_of
from smm_lightning.device import precision_for


class Stopwatch(Callback):
    """Seconds of the parts of every epoch.

    Args:
        setting: names the device.
    """

    def __init__(self, setting: Setting) -> None:
        self.device = setting.device
        self.epochs: list[dict[str, float]] = []
        self._at: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """The epoch begins, with the mapping pass."""
        self._at = {"began": now(self.device)}

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """All steps are done."""
        self._at["trained"] = now(self.device)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """The test is done."""
        self._at["tested"] = now(self.device)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Note the parts."""
        mapping = float(trainer.callback_metrics["time/mapping_s"])
        whole = self._at["tested"] - self._at["began"]
        training = self._at["trained"] - self._at["began"] - mapping
        test = whole - mapping - training
        self.epochs.append(
            {"mapping_s": mapping, "training_s": training, "test_s": test, "epoch_s": whole}
        )


def measure(setting: Setting) -> dict[str, Any]:
    """The last epoch's parts, and the peak memory of the process."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    data, module = parts_of(setting)
    stopwatch = Stopwatch(setting)
    precision = precision_for(setting.precision, setting.device, module.classifier.backbone.body)
    trainer = L.Trainer(
        accelerator=setting.accelerator,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        benchmark=True,
        max_epochs=setting.epochs,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[stopwatch],
    )
    trainer.fit(module, datamodule=data)
    epoch = stopwatch.epochs[-1]
    return {
        **epoch,
        "precision": precision,
        "images_per_s": setting.train_images / epoch["training_s"],
        "memory_mib": peak_memory(setting.device),
    }
