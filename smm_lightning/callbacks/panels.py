"""What a dashboard shows beside curves: masks on fixed images, mapping, confusions."""

from typing import Any, cast

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from numpy.typing import NDArray
from torch import Tensor

from smm_lightning.views import VIEWS, equalised, true_colours, views

_MOST_PICTURES = 16  # in a panel
_MOST_CLASSES = 50  # of a confusion plot; above it a heat map
_NEAR_ZERO = 0.05  # of the largest absolute value of a mask
_CHANNELS = ("red", "green", "blue")


class Panels(Callback):
    """Logs to wandb or TensorBoard: mask statistics every epoch, pictures every few, the rest last.

    Args:
        every_n_epochs: pictures are logged after the first, every n-th and the last epoch.
        pictures: fixed test images, of as many classes as there are.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(self, every_n_epochs: int = 10, pictures: int = 8) -> None:
        if every_n_epochs < 1 or pictures < 1:
            raise ValueError("every_n_epochs and pictures must be at least 1")
        self.every_n_epochs = every_n_epochs
        self.pictures = min(pictures, _MOST_PICTURES)
        self._images: Tensor | None = None
        self._names: list[str] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Statistics of the masks, and pictures where they are due."""
        logger, module = trainer.logger, cast("Any", pl_module)
        if logger is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        transform = module.input_transform
        was_training = transform.training
        transform.eval()
        found = views(transform, self._fixed_images(trainer, module))
        transform.train(was_training)
        epoch, last = trainer.current_epoch, (trainer.max_epochs or 0) - 1
        statistics = {"epoch": epoch, **mask_statistics(found["mask"])}
        logger.log_metrics(statistics, trainer.global_step)
        if epoch in (0, last) or (epoch + 1) % self.every_n_epochs == 0:
            for name, rows in picture_rows(found).items():
                log_pictures(logger, name, rows, self._names, trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Mapping with names, and the confusions of the test images."""
        logger, module = trainer.logger, cast("Any", pl_module)
        if logger is None or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        rows = module.label_mapping.table(module.class_names, module.backbone.class_names)
        counts = confusions(trainer, module)
        if isinstance(logger, WandbLogger):
            _finish_wandb(logger, rows, counts, module.class_names)
        elif isinstance(logger, TensorBoardLogger):
            text = "\n".join(f"- {row['target']} <- {row['source']}" for row in rows)
            logger.experiment.add_text("mapping", text, trainer.global_step)
            log_pictures(logger, "confusion", [_heat_map(counts)], [""], trainer.global_step)

    def _fixed_images(self, trainer: L.Trainer, module: Any) -> Tensor:
        if self._images is None:
            data = trainer.datamodule  # type: ignore[attr-defined]
            chosen = data.drawn("test", self.pictures)
            batches = data.plain_batches("test", module.device, chosen)
            self._images = torch.cat([batch["image"] for batch in batches])
            self._names = [module.class_names[label] for label in data.labels("test")[chosen]]
        return self._images


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


def log_pictures(
    logger: Logger, name: str, rows: list[NDArray[np.uint8]], captions: list[str], step: int
) -> None:
    """To a logger that shows pictures; others ignore them."""
    if isinstance(logger, WandbLogger):
        import wandb

        pictures = [wandb.Image(r, caption=c) for r, c in zip(rows, captions, strict=True)]
        logger.experiment.log({f"pictures/{name}": pictures, "trainer/global_step": step})
    elif isinstance(logger, TensorBoardLogger):
        stacked = np.concatenate(rows)
        logger.experiment.add_image(f"pictures/{name}", stacked, step, dataformats="HWC")


@torch.inference_mode()
def confusions(trainer: L.Trainer, module: Any) -> NDArray[np.int64]:
    """Test images (T, T) by true and predicted class."""
    classes = len(module.class_names)
    counts = torch.zeros(classes * classes, dtype=torch.int64)
    was_training = module.training
    module.eval()
    for batch in trainer.datamodule.plain_batches("test", module.device):  # type: ignore[attr-defined]
        cells = batch["target"] * classes + module(batch["image"]).argmax(1)
        counts += torch.bincount(cells.cpu(), minlength=classes**2)
    module.train(was_training)
    found: NDArray[np.int64] = counts.view(classes, classes).numpy()
    return found


def _finish_wandb(
    logger: WandbLogger, rows: list[dict[str, Any]], counts: NDArray[np.int64], names: list[str]
) -> None:
    import wandb

    columns: list[str | int] = ["target", "source", "source_index"]
    table = wandb.Table(columns, [[row[str(column)] for column in columns] for row in rows])
    content: dict[str, Any] = {"mapping/table": table}
    if len(names) <= _MOST_CLASSES:
        cells = [(t, p) for t, p in np.ndindex(*counts.shape) for _ in range(counts[t, p])]
        true, predicted = ([cell[i] for cell in cells] for i in (0, 1))
        plot = wandb.plot.confusion_matrix(y_true=true, preds=predicted, class_names=names)
        content["confusion"] = plot
    else:
        content["confusion"] = wandb.Image(_heat_map(counts))
    logger.experiment.log(content)


def _heat_map(counts: NDArray[np.int64], cell: int = 4) -> NDArray[np.uint8]:
    """Rows in per cent as shades of grey, a few pixels a cell."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    grey = np.kron(255 * (1 - shares), np.ones((cell, cell))).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
