import pytest
import torch
from torch.optim import Adam
from torch.utils._python_dispatch import TorchDispatchMode

from smm_lightning.errors import UserError
from smm_lightning.training.finite_loss import FiniteLoss


def test_on_a_device_that_is_seldom_asked_no_step_follows_a_bad_loss():
    weight = torch.nn.Parameter(torch.ones(3))
    adam = Adam([{"params": [weight], "lr": 0.1, "name": "pattern"}], fused=True)
    finite = FiniteLoss(look_every=5)
    seen = []

    def step(number, factor):
        adam.zero_grad()
        loss = (weight * factor).sum()
        finite.watch(loss, adam, 4, number, last=False)
        loss.backward()
        adam.step()
        seen.append(weight.detach().clone())

    for number, factor in enumerate((1.0, 1.0, float("nan"), 1.0, float("inf"))):
        step(number, factor)
    assert not torch.equal(seen[0], seen[1])
    assert all(torch.equal(later, seen[1]) for later in seen[2:])
    with pytest.raises(UserError, match=r"not finite in epoch 4, step 2, at .*'pattern': 0.1"):
        step(5, 1.0)


def test_the_last_step_of_an_epoch_looks_and_the_next_epoch_begins_anew():
    adam = Adam([{"params": [torch.nn.Parameter(torch.ones(1))], "name": "x"}], fused=True)
    finite = FiniteLoss(look_every=100)
    bad = torch.tensor(float("inf"))
    finite.watch(bad, adam, 0, 1, last=False)
    with pytest.raises(UserError, match=r"epoch 0, step 1"):
        finite.watch(torch.tensor(1.0), adam, 0, 2, last=True)
    finite.watch(torch.tensor(1.0), adam, 1, 0, last=True)


class Questions(TorchDispatchMode):
    """Operations for which a GPU would make the host wait."""

    asking = ("_local_scalar_dense", "nonzero", "_unique2", "bincount", "is_nonzero", "equal")

    def __init__(self):
        super().__init__()
        self.lines = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket.__name__ in self.asking:
            self.lines.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("refresh", ["epoch", "running"])
def test_a_training_step_asks_the_device_nothing(composed, refresh):
    import lightning as L

    from tests.assembled import assemble, trainer_of

    cfg = composed(
        "backbone=tiny", "trainer=cpu", "epochs=1", "callbacks=none", f"mapping.refresh={refresh}"
    )
    parts = assemble(cfg)
    parts.module._finite = FiniteLoss(look_every=1000)
    questions = Questions()

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if batch_idx == 3:
                questions.__enter__()

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if batch_idx == 5:
                questions.__exit__(None, None, None)
                trainer.should_stop = True

    with Questions() as control:
        assert torch.ones(1).item() == 1
    assert control.lines == ["_local_scalar_dense"]
    trainer_of(cfg, [Watch()]).fit(parts.module, datamodule=parts.data)
    assert questions.lines == []
