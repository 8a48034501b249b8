"""How much a prompt does to images, an epoch at a time."""

from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from smm_lightning.classifier.evaluating import evaluating
from smm_lightning.dataset.batch import pair_of
from smm_lightning.method import InputTransform


class PromptRecorder(Callback):
    """Logs what the prompt does to the last training batch of every epoch.

    ``prompt/mask`` is the mean absolute value of the masks, ``prompt/distance`` the root mean
    square of f_in(x) - x in the units of the backbone's input: near 1, nothing is left of x.
    """

    @override
    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Once an epoch: a GPU waits for the host here."""
        if trainer.is_last_batch:
            transform = cast("Any", pl_module).classifier.input_transform
            measured = effect(transform, pair_of(batch)[0])
            pl_module.log_dict(measured, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)


@torch.no_grad()
def effect(transform: InputTransform, images: Tensor) -> dict[str, Tensor]:
    """``prompt/mask`` and ``prompt/distance`` of images (B, 3, input_size, input_size) in [0, 1].

    Args:
        transform: in any mode; measured in eval mode, which leaves its running means alone.
        images: see above.
    """
    with evaluating(transform):
        mask, added = transform.mask(images), transform(images) - transform.bare(images)
    return {
        "prompt/mask": mask.float().abs().mean(),
        "prompt/distance": added.float().square().mean().sqrt(),
    }
