"""Our side: the real Trainer, datamodule and module, with a stopwatch."""

import warnings
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from smm_lightning.benchmark.measure import now, peak_memory
from smm_lightning.benchmark.setting import Setting, config_of
from smm_lightning.training.assembly import build_trainer, plan


class Stopwatch(Callback):
    """Seconds of the parts of every epoch.

    Args:
        setting: names the device.
    """

    def __init__(self, setting: Setting) -> None:
        self.device = setting.device
        self.epochs: list[dict[str, float]] = []
        self._at: list[float] = []  # begin, after the steps, after the test

    @override
    def on_train_epoch_start(self, *_: Any) -> None:
        """The epoch begins, with the mapping pass."""
        self._at = [now(self.device)]

    @override
    def on_validation_start(self, *_: Any) -> None:
        """All steps are done."""
        self._at.append(now(self.device))

    @override
    def on_validation_end(self, *_: Any) -> None:
        """The test is done."""
        self._at.append(now(self.device))

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the parts."""
        mapping = float(trainer.callback_metrics["time/mapping_s"])
        began, trained, tested = self._at
        parts = {"mapping_s": mapping, "training_s": trained - began - mapping}
        self.epochs.append({**parts, "test_s": tested - trained, "epoch_s": tested - began})


def measure(setting: Setting) -> dict[str, Any]:
    """The last epoch's parts, and the peak memory of the process."""
    warnings.filterwarnings("ignore")
    config = config_of(setting)
    planned, stopwatch = plan(config), Stopwatch(setting)
    trainer = build_trainer(config.trainer, planned.pieces.backbone, [stopwatch], [])
    data, module = planned.carry_out()
    trainer.fit(module, datamodule=data)
    epoch = stopwatch.epochs[-1]
    return {
        **epoch,
        "precision": trainer.precision,
        "images_per_s": setting.train_images / epoch["training_s"],
        "memory_mib": peak_memory(setting.device),
    }
