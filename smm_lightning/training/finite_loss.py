"""Stop at a loss that is not finite, without asking the device in every step."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from smm_lightning.errors import problem

_LOOK_EVERY = 50  # steps on a GPU: looking makes the host wait until the device has caught up


class FiniteLoss:
    """Watches the losses of a run; the optimiser never steps on or after one that is not finite.

    On a CPU a bad loss ends the run at once. On a GPU a fused optimiser's kernel skips the steps
    from there on, and the run ends when the host looks, at the latest with the epoch. (Under
    float16, where the loss is scaled, the scaler skips the bad steps alone.)

    Args:
        look_every: steps between looks; ``None``: 50 where bad steps are skipped, else 1.
    """

    def __init__(self, look_every: int | None = None) -> None:
        self.look_every = look_every
        self._failed: Tensor | None = None  # float, 1 from the first bad loss on
        self._steps: Tensor | None = None  # good ones before it

    def watch(
        self, loss: Tensor, optimizer: Optimizer, epoch: int, step: int, *, last: bool
    ) -> None:
        """Take note of a training loss.

        Args:
            loss: of this step, before the backward pass.
            optimizer: a fused one reads ``found_inf``; with another one every step is looked at.
            epoch: for the message.
            step: number in the epoch.
            last: whether the epoch ends with it.

        Raises:
            UserError: If a loss was not finite.
        """
        # A float on the device: a fused optimiser reads it there, and nobody waits for it.
        failed = torch.logical_not(torch.isfinite(loss.detach())).float()
        if step == 0 or self._failed is None or self._steps is None:
            self._failed, self._steps = failed, step + 1 - failed
        else:
            self._failed = torch.maximum(self._failed, failed)
            self._steps = self._steps + 1 - self._failed
        skips = all(group.get("fused") for group in optimizer.param_groups)
        if skips:
            optimizer.found_inf = self._failed  # type: ignore[attr-defined]
        skips &= loss.device.type != "cpu"  # where looking costs nothing, look
        every = self.look_every or (_LOOK_EVERY if skips else 1)
        if (last or step % every == 0) and self._failed.item():
            rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
            raise problem(
                "training",
                f"the loss is not finite in epoch {epoch}, step {int(self._steps)}, at learning "
                f"rates {rates}",
                hint="Lower optimizer.groups.pattern.lr or optimizer.groups.mask_generator.lr, or "
                "use trainer.precision=32-true.",
            )
