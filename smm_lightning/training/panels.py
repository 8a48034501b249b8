"""What a dashboard shows beside curves: masks on fixed images, mapping, confusions."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, NamedTuple, cast

import lightning as L
import numpy as np
import torch
from annotated_types import Ge, Le
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from smm_lightning.classifier.evaluating import evaluating
from smm_lightning.method.pictures import VIEWS, equalised, true_colours, views
from smm_lightning.ranges import Count
from smm_lightning.training.logger import quietly

_MOST_CLASSES = 50  # of wandb's own plot of confusions
_MOST_NAMES, _MOST_NUMBERS = 30, 12  # of classes, that can be read in a picture of confusions
_NEAR_ZERO = 0.05  # of the largest absolute value of a mask
_CHANNELS = ("red", "green", "blue")

Rows = list[NDArray[np.uint8]]


class Outcome(NamedTuple):
    """Of a training.

    Attributes:
        mapping: see :meth:`LabelMapping.table`.
        targets: true classes of the test images (N,).
        predicted: their predicted classes (N,).
        names: of the target classes.
    """

    mapping: list[dict[str, Any]]
    targets: Tensor
    predicted: Tensor
    names: list[str]


class Panels(Callback, ABC):
    """Logs mask statistics every epoch, pictures every few, mapping and confusions at the end.

    Each kind of logger has panels of its own, which do nothing without it.

    Args:
        every_n_epochs: pictures are logged after the first, every n-th and the last epoch.
        pictures: fixed images of ``val``, or else ``train``, of as many classes as there are.
    """

    kind: type[Logger]  # that it logs to

    def __init__(
        self, every_n_epochs: Count = 10, pictures: Annotated[int, Ge(1), Le(16)] = 8
    ) -> None:
        self.every_n_epochs = every_n_epochs
        self.pictures = pictures
        self._images: Tensor | None = None
        self._names: list[str] = []

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        logger, module = self._logger(trainer), cast("Any", pl_module)
        if logger is None:
            return
        transform = module.classifier.input_transform
        with evaluating(transform):
            arrays = views(transform, self._fixed_images(trainer, module))
        epoch, last = trainer.current_epoch, (trainer.max_epochs or 0) - 1
        statistics = {"epoch": epoch, **mask_statistics(arrays["mask"])}
        logger.log_metrics(statistics, trainer.global_step)
        if epoch in (0, last) or (epoch + 1) % self.every_n_epochs == 0:
            for name, rows in picture_rows(arrays).items():
                with quietly(logger):
                    self.log_pictures(logger, f"pictures/{name}", rows, trainer.global_step)

    @override
    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        logger, module = self._logger(trainer), cast("Any", pl_module)
        if logger is not None:
            mapping, names = module.describe()["mapping"], module.classifier.class_names
            outcome = Outcome(mapping, *_answers(trainer, module), names)
            with quietly(logger):
                self.finish(logger, outcome, trainer.global_step)

    @abstractmethod
    def log_pictures(self, logger: Any, name: str, rows: Rows, step: int) -> None:
        """Log pictures (S, 4 S, 3), one for each fixed image."""

    @abstractmethod
    def finish(self, logger: Any, outcome: Outcome, step: int) -> None:
        """Log the label mapping and the confusions."""

    def _logger(self, trainer: L.Trainer) -> Logger | None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return None
        return next((each for each in trainer.loggers if isinstance(each, self.kind)), None)

    def _fixed_images(self, trainer: L.Trainer, module: Any) -> Tensor:
        if self._images is None:
            data = trainer.datamodule  # type: ignore[attr-defined]
            # Not the test: masks are looked at while there is still something to choose.
            split = "val" if "val" in data.image_counts else "train"
            chosen = data.drawn(split, self.pictures)
            batches = data.plain_batches(split, module.device, chosen)
            self._images = torch.cat([batch["image"] for batch in batches])
            names = module.classifier.class_names
            self._names = [names[label] for label in data.labels(split)[chosen]]
        return self._images


class WandbPanels(Panels):
    """For wandb."""

    kind = WandbLogger

    @override
    def log_pictures(self, logger: Any, name: str, rows: Rows, step: int) -> None:
        import wandb

        pairs = zip(rows, self._names, strict=True)
        pictures = [wandb.Image(row, caption=class_name) for row, class_name in pairs]
        logger.experiment.log({name: pictures, "trainer/global_step": step})

    @override
    def finish(self, logger: Any, outcome: Outcome, step: int) -> None:
        import wandb

        columns: list[str | int] = ["target", "source", "source_index", "weight"]
        cells = [
            [row["target"], source["name"], source["index"], source["weight"]]
            for row in outcome.mapping
            for source in row["sources"]
        ]
        confusion: Any
        if len(outcome.names) <= _MOST_CLASSES:
            targets, predicted = outcome.targets.tolist(), outcome.predicted.tolist()
            confusion = wandb.plot.confusion_matrix(None, targets, predicted, outcome.names)
        else:
            confusion = wandb.Image(confusion_figure(outcome))
        content = {"mapping/table": wandb.Table(columns, cells), "confusion": confusion}
        logger.experiment.log(content)


class TensorBoardPanels(Panels):
    """For TensorBoard."""

    kind = TensorBoardLogger

    @override
    def log_pictures(self, logger: Any, name: str, rows: Rows, step: int) -> None:
        logger.experiment.add_image(name, np.concatenate(rows), step, dataformats="HWC")

    @override
    def finish(self, logger: Any, outcome: Outcome, step: int) -> None:
        pairs = [
            (row["target"], [source["name"] for source in row["sources"]])
            for row in outcome.mapping
        ]
        text = "\n".join(f"- {target} <- {', '.join(sources)}" for target, sources in pairs)
        logger.experiment.add_text("mapping", text, step)
        logger.experiment.add_figure("confusion", confusion_figure(outcome), step)


def mask_statistics(masks: NDArray[np.float32]) -> dict[str, float]:
    """Mean, standard deviation and share near zero of each channel.

    Args:
        masks: (B, S, S, 3).
    """
    largest = max(float(np.abs(masks).max()), 1e-12)
    statistics = {}
    for channel, name in enumerate(_CHANNELS):
        values = masks[..., channel]
        statistics[f"mask/mean_{name}"] = float(values.mean())
        statistics[f"mask/std_{name}"] = float(values.std())
        near_zero = np.abs(values) < _NEAR_ZERO * largest
        statistics[f"mask/near_zero_{name}"] = float(near_zero.mean())
    return statistics


def picture_rows(arrays: dict[str, NDArray[np.float32]]) -> dict[str, Rows]:
    """Image, pattern, mask and sum side by side, in true colours and equalised.

    Args:
        arrays: see :func:`views`.
    """
    side = arrays["shown"].shape[1]

    def row(look: Any, number: int) -> NDArray[np.uint8]:
        parts = [
            _of_side(look(arrays[view][number], centred=view in ("pattern", "mask")), side)
            for view in VIEWS
        ]
        return (255 * np.concatenate(parts, axis=1)).astype(np.uint8)

    looks = {"masks": true_colours, "masks_equalised": equalised}
    numbers = range(len(arrays["shown"]))
    return {name: [row(look, number) for number in numbers] for name, look in looks.items()}


def _of_side(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The pad method's images are smaller: in the middle of a white square."""
    rest = side - len(picture)
    before, after = (rest + 1) // 2, rest // 2
    return np.pad(picture, ((before, after), (before, after), (0, 0)), constant_values=1)


@torch.inference_mode()
def _answers(trainer: L.Trainer, module: Any) -> tuple[Tensor, Tensor]:
    """True and predicted classes (N,) of the test images."""
    with evaluating(module):
        pairs = [
            (batch["target"].cpu(), module(batch["image"]).argmax(1).cpu())
            for batch in trainer.datamodule.plain_batches("test", module.device)  # type: ignore[attr-defined]
        ]
    targets, predicted = zip(*pairs, strict=True)
    return torch.cat(targets), torch.cat(predicted)


def confusion_figure(outcome: Outcome) -> Figure:
    """Confusions as shares of the true class, with names where they can be read."""
    from sklearn.metrics import ConfusionMatrixDisplay

    count, figure = len(outcome.names), Figure(layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        outcome.targets.numpy(),
        outcome.predicted.numpy(),
        labels=range(count),
        display_labels=outcome.names if count <= _MOST_NAMES else None,
        normalize="true",
        include_values=count <= _MOST_NUMBERS,
        values_format=".2f",
        xticks_rotation=60,
        ax=figure.subplots(),
    )
    return figure
