"""Every precision that is accepted trains, and what is trained keeps at least float32."""

from pathlib import Path

import pytest
import torch

from smm_lightning import train as entry
from smm_lightning.run.checkpoint import read_checkpoint
from tests.assembled import assemble
from tests.test_train import SMALL


@pytest.fixture
def trained(composed):
    def train_with(precision, *options):
        cfg = composed(*SMALL, "epochs=4", f"trainer.precision={precision}", *options)
        result = entry.train(cfg)
        state = read_checkpoint(Path(cfg.paths.run) / "last.ckpt")["state_dict"]
        return result, state

    return train_with


@pytest.mark.parametrize("method", ["smm", "pad", "only_mask", "full"])
@pytest.mark.parametrize(
    ("precision", "kept", "tolerance"),
    [
        ("64-true", torch.float64, 5e-4),
        ("bf16-true", torch.float32, 0.02),
        ("16-true", torch.float32, 0.02),
        ("bf16-mixed", torch.float32, 0.02),
    ],
)
def test_every_precision_trains_as_float32_does(trained, method, precision, kept, tolerance):
    # A mapping that stays: 16 bits decide a close count otherwise.
    options = (f"method={method}", "dataset.native_size=16", "mapping=rlm")
    single, _ = trained("32-true", *options)
    result, state = trained(precision, *options)
    assert result["precision"] == precision
    one, *_, last = (row["train/loss"] for row in single["history"])
    other, *_, latest = (row["train/loss"] for row in result["history"])
    assert one == pytest.approx(other, abs=tolerance)
    # Adam scales up the rounding errors of f_mask's small gradients, so later epochs are compared
    # with what four epochs change.
    assert one > last
    assert other > latest
    assert other - latest == pytest.approx(one - last, rel=0.3, abs=tolerance)
    learned = {n: v for n, v in state.items() if n.startswith("classifier.input_transform.")}
    assert {v.dtype for v in learned.values() if v.is_floating_point()} == {kept}


@pytest.mark.parametrize(("dtype", "kept"), [(torch.float16, torch.float32), (torch.float64,) * 2])
def test_only_the_frozen_network_gets_less_than_float32(composed, dtype, kept):
    module = assemble(composed(*SMALL)).module
    transform = module.classifier.input_transform
    before = {name: value.clone() for name, value in transform.state_dict().items()}
    mean = transform.mean.clone()
    module.to(dtype)
    assert module.classifier.backbone.dtype == dtype
    for name, value in transform.state_dict().items():
        assert value.dtype == (kept if value.is_floating_point() else before[name].dtype)
        assert torch.equal(value.to(before[name].dtype), before[name]), name
    assert torch.equal(transform.mean.to(mean.dtype), mean)


def test_float16_autocast_is_refused_on_a_cpu(composed):
    from smm_lightning.errors import UserError

    with pytest.raises(UserError, match=r"trainer.precision: CPUs have no float16 autocast"):
        entry.train(composed(*SMALL, "trainer.precision=16-mixed"))
