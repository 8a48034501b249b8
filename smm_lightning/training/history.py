"""The history of a run: a row an epoch, in the checkpoint, in a CSV and on the screen."""

import csv
import io
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from smm_lightning.files import write_atomically
from smm_lightning.training.diagnosis import Row, diagnose


class EpochRecorder(Callback):
    """Collects what was logged under names with a slash, such as ``test/acc``.

    Args:
        path: of the CSV, rewritten as a whole after every epoch; ``None`` writes none.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.history: list[Row] = []
        self._started = 0.0
        self._before = 0.0  # seconds of this epoch before the run went on in the middle of it
        self._evaluated = False
        self._evaluation = 0.0
        self._rates: Row = {}

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock; the hook of the epoch's start is not called in the middle of one."""
        self._started = time.perf_counter()

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the epoch."""
        self._started, self._before = time.perf_counter(), 0.0
        self._evaluated, self._evaluation = False, 0.0
        self._rates = {}

    @override
    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Note the rates of this epoch; at its end the schedule has moved on to the next."""
        if not self._rates:
            groups = trainer.optimizers[0].param_groups
            self._rates = {f"lr/{group['name']}": group["lr"] for group in groups}

    @override
    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the evaluation."""
        self._evaluation -= time.perf_counter()

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that this epoch has test metrics; Lightning keeps those of earlier epochs."""
        self._evaluated = True
        self._evaluation += time.perf_counter()

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the row of this epoch."""
        metrics = {
            name: value.item()
            for name, value in trainer.callback_metrics.items()
            if "/" in name and (self._evaluated or not name.startswith(("test/", "val/")))
        }
        # After the metrics, whose numbers wait for the device: so the clock has seen its work.
        seconds = self._elapsed()
        stepping = seconds - metrics.get("time/mapping_s", 0.0) - self._evaluation
        times = {
            "time/epoch_s": seconds,
            "time/evaluation_s": self._evaluation,
            "time/step_s": stepping / max(1, int(trainer.num_training_batches)),
        }
        if trainer.loggers:
            images = trainer.datamodule.image_counts["train"]  # type: ignore[attr-defined]
            shown = {"epoch": trainer.current_epoch, "time/images_per_s": images / seconds}
            for logger in trainer.loggers:
                logger.log_metrics({**self._rates, **times, **shown}, trainer.global_step)
        row = {"epoch": trainer.current_epoch, **metrics, **self._rates, **times}
        self.history.append(row)
        if trainer.is_global_zero:
            if self.path is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                write_atomically(self.path, as_csv(self.history).encode())
            print(epoch_line(self.history, trainer.max_epochs or 0), flush=True)
            classes = len(cast("Any", pl_module).classifier.class_names)
            for finding in diagnose(self.history, classes):
                if finding.epoch == row["epoch"]:  # said once
                    print(finding.sentence(), flush=True)

    def diagnosis(self, classes: int) -> list[dict[str, Any]] | None:
        """What :func:`diagnose` finds, as plain values; ``None`` if that is nothing.

        Args:
            classes: T.
        """
        return [asdict(finding) for finding in diagnose(self.history, classes)] or None

    @override
    def state_dict(self) -> dict[str, Any]:
        """The history goes into the checkpoint."""
        return {"history": self.history, "elapsed": self._elapsed()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the history of a checkpoint.

        Raises:
            ValueError: If it is none.
        """
        history, elapsed = state_dict["history"], state_dict["elapsed"]
        rows = isinstance(history, list) and all(isinstance(row, dict) for row in history)
        cells = [elapsed, *(cell for row in history for cell in row.values())] if rows else []
        times = all({"epoch", "time/epoch_s", "time/step_s"} <= row.keys() for row in history)
        if not (rows and times and all(isinstance(cell, int | float) for cell in cells)):
            raise ValueError("its history is no list of rows of numbers")
        shares = (cell for row in history for name, cell in row.items() if name.endswith("/acc"))
        if not all(0 <= share <= 1 for share in shares):
            raise ValueError("its history has accuracies that are none")
        self.history, self._before = history, elapsed

    def _elapsed(self) -> float:
        return self._before + time.perf_counter() - self._started


def as_csv(history: list[Row]) -> str:
    """All rows under the union of their columns."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def epoch_line(history: list[Row], epochs: int) -> str:
    """The latest row for a person: ``epoch 3/10  loss 0.412  train 88.1 %  test 90.3 %  ...``."""
    row = history[-1]
    done = int(row["epoch"]) + 1
    parts = [f"epoch {done:>{len(str(epochs))}}/{epochs}"]
    if "train/loss" in row:
        parts.append(f"loss {row['train/loss']:.3f}")
    shown = [split for split in ("train", "val", "test") if f"{split}/acc" in row]
    parts += [f"{split} {100 * row[f'{split}/acc']:.1f} %" for split in shown]
    # Of all epochs: a single one may have built a cache, or shared the machine.
    mean = sum(past["time/epoch_s"] for past in history) / len(history)
    parts += [f"{row['time/epoch_s']:.1f} s", f"{clock(mean * (epochs - done))} left"]
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """125 -> ``2:05``; 3725 -> ``1:02:05``."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
