"""What a dashboard shows beside curves: masks on fixed images, mapping, confusions."""

from abc import ABC, abstractmethod
from typing import Annotated, Any, cast

import lightning as L
import numpy as np
import torch
from annotated_types import Ge, Le
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray
from torch import Tensor

from smm_lightning.method.pictures import VIEWS, equalised, true_colours, views
from smm_lightning.ranges import Count

_MOST_CLASSES = 50  # of a confusion plot; above it a heat map
_NEAR_ZERO = 0.05  # of the largest absolute value of a mask
_CHANNELS = ("red", "green", "blue")


Rows = list[NDArray[np.uint8]]


class Panels(Callback, ABC):
    """Logs mask statistics every epoch, pictures every few, mapping and confusions at the end.

    Each kind of logger has panels of its own, which do nothing without it.

    Args:
        every_n_epochs: pictures are logged after the first, every n-th and the last epoch.
        pictures: fixed test images, of as many classes as there are.
    """

    kind: type[Logger]  # that it logs to

    def __init__(
        self, every_n_epochs: Count = 10, pictures: Annotated[int, Ge(1), Le(16)] = 8
    ) -> None:
        self.every_n_epochs = every_n_epochs
        self.pictures = pictures
        self._images: Tensor | None = None
        self._names: list[str] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Statistics of the masks, and pictures where they are due."""
        logger, module = self._logger(trainer), cast("Any", pl_module)
        if logger is None:
            return
        transform = module.classifier.input_transform
        was_training = transform.training
        transform.eval()
        found = views(transform, self._fixed_images(trainer, module))
        transform.train(was_training)
        epoch, last = trainer.current_epoch, (trainer.max_epochs or 0) - 1
        statistics = {"epoch": epoch, **mask_statistics(found["mask"])}
        logger.log_metrics(statistics, trainer.global_step)
        if epoch in (0, last) or (epoch + 1) % self.every_n_epochs == 0:
            for name, rows in picture_rows(found).items():
                self.log_pictures(logger, name, rows, self._names, trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mapping with names, and the confusions of the test images."""
        logger, module = self._logger(trainer), cast("Any", pl_module)
        if logger is None:
            return
        rows, names = module.describe()["mapping"], module.classifier.class_names
        counts = confusions(trainer, module)
        self.finish(logger, rows, counts, names, trainer.global_step)

    @abstractmethod
    def log_pictures(
        self, logger: Any, name: str, rows: Rows, captions: list[str], step: int
    ) -> None:
        """Pictures (S, 4 S, 3) with their captions."""

    @abstractmethod
    def finish(
        self,
        logger: Any,
        rows: list[dict[str, Any]],
        counts: NDArray[np.int64],
        names: list[str],
        step: int,
    ) -> None:
        """The mapping's rows, and test images (T, T) by true and predicted class."""

    def _logger(self, trainer: L.Trainer) -> Logger | None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return None
        return next((each for each in trainer.loggers if isinstance(each, self.kind)), None)

    def _fixed_images(self, trainer: L.Trainer, module: Any) -> Tensor:
        if self._images is None:
            data = trainer.datamodule  # type: ignore[attr-defined]
            chosen = data.drawn("test", self.pictures)
            batches = data.plain_batches("test", module.device, chosen)
            self._images = torch.cat([batch["image"] for batch in batches])
            names = module.classifier.class_names
            self._names = [names[label] for label in data.labels("test")[chosen]]
        return self._images


class WandbPanels(Panels):
    """For wandb."""

    kind = WandbLogger

    def log_pictures(
        self, logger: Any, name: str, rows: Rows, captions: list[str], step: int
    ) -> None:
        """See :meth:`Panels.log_pictures`."""
        import wandb

        pictures = [wandb.Image(r, caption=c) for r, c in zip(rows, captions, strict=True)]
        logger.experiment.log({f"pictures/{name}": pictures, "trainer/global_step": step})

    def finish(
        self,
        logger: Any,
        rows: list[dict[str, Any]],
        counts: NDArray[np.int64],
        names: list[str],
        step: int,  # noqa: ARG002 - wandb has one of its own
    ) -> None:
        """See :meth:`Panels.finish`."""
        import wandb

        columns: list[str | int] = ["target", "source", "source_index", "weight"]
        cells_of_rows = [
            [row["target"], source["name"], source["index"], source["weight"]]
            for row in rows
            for source in row["sources"]
        ]
        table = wandb.Table(columns, cells_of_rows)
        content: dict[str, Any] = {"mapping/table": table}
        if len(names) <= _MOST_CLASSES:
            cells = [(t, p) for t, p in np.ndindex(*counts.shape) for _ in range(counts[t, p])]
            true, predicted = ([cell[i] for cell in cells] for i in (0, 1))
            plot = wandb.plot.confusion_matrix(y_true=true, preds=predicted, class_names=names)
            content["confusion"] = plot
        else:
            content["confusion"] = wandb.Image(_heat_map(counts))
        logger.experiment.log(content)


class TensorBoardPanels(Panels):
    """For TensorBoard."""

    kind = TensorBoardLogger

    def log_pictures(
        self,
        logger: Any,
        name: str,
        rows: Rows,
        captions: list[str],  # noqa: ARG002 - TensorBoard shows none
        step: int,
    ) -> None:
        """See :meth:`Panels.log_pictures`."""
        stacked = np.concatenate(rows)
        logger.experiment.add_image(f"pictures/{name}", stacked, step, dataformats="HWC")

    def finish(
        self,
        logger: Any,
        rows: list[dict[str, Any]],
        counts: NDArray[np.int64],
        names: list[str],  # noqa: ARG002 - TensorBoard shows none
        step: int,
    ) -> None:
        """See :meth:`Panels.finish`."""
        pairs = [(row["target"], [source["name"] for source in row["sources"]]) for row in rows]
        text = "\n".join(f"- {target} <- {', '.join(sources)}" for target, sources in pairs)
        logger.experiment.add_text("mapping", text, step)
        self.log_pictures(logger, "confusion", [_heat_map(counts)], [""], step)


def mask_statistics(masks: NDArray[np.float32]) -> dict[str, float]:
    """Mean, standard deviation and share near zero of each channel.

    Args:
        masks: (B, S, S, 3).
    """
    largest = max(float(np.abs(masks).max()), 1e-12)
    found = {}
    for channel, name in enumerate(_CHANNELS):
        values = masks[..., channel]
        found[f"mask/mean_{name}"] = float(values.mean())
        found[f"mask/std_{name}"] = float(values.std())
        found[f"mask/near_zero_{name}"] = float((np.abs(values) < _NEAR_ZERO * largest).mean())
    return found


def picture_rows(found: dict[str, NDArray[np.float32]]) -> dict[str, list[NDArray[np.uint8]]]:
    """Image, pattern, mask and sum side by side, in true colours and equalised."""
    side = found["shown"].shape[1]
    rows: dict[str, list[NDArray[np.uint8]]] = {}
    for name, look in (("masks", true_colours), ("masks_equalised", equalised)):
        rows[name] = []
        for number in range(len(found["shown"])):
            parts = [
                _of_side(look(found[view][number], centred=view in ("pattern", "mask")), side)
                for view in VIEWS
            ]
            rows[name].append((255 * np.concatenate(parts, axis=1)).astype(np.uint8))
    return rows


def _of_side(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """The pad method's images are smaller: in the middle of a white square."""
    rest = side - len(picture)
    before, after = (rest + 1) // 2, rest // 2
    return np.pad(picture, ((before, after), (before, after), (0, 0)), constant_values=1)


@torch.inference_mode()
def confusions(trainer: L.Trainer, module: Any) -> NDArray[np.int64]:
    """Test images (T, T) by true and predicted class."""
    classes = len(module.classifier.class_names)
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    was_training = module.training
    module.eval()
    for batch in trainer.datamodule.plain_batches("test", module.device):  # type: ignore[attr-defined]
        cells = batch["target"] * classes + module(batch["image"]).argmax(1)
        counts += torch.bincount(cells.cpu(), minlength=classes**2)
    module.train(was_training)
    found: NDArray[np.int64] = counts.view(classes, classes).numpy()
    return found


def _heat_map(counts: NDArray[np.int64], cell: int = 4) -> NDArray[np.uint8]:
    """Rows in per cent as shades of grey, a few pixels a cell."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    grey = np.kron(255 * (1 - shares), np.ones((cell, cell))).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
