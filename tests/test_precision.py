"""Every precision that is accepted trains, and what is trained keeps at least float32."""

from pathlib import Path

import pytest
import torch

from smm_lightning import train as entry
from smm_lightning.inference.model import load_model
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.run.identity import identity
from smm_lightning.training import trainer
from smm_lightning.training.trainer import make_trainer
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
    options = (f"method={method}", "dataset.native_size=16", "mapping=rlm", "protocol=published")
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


def test_tests_and_counts_without_autocast(composed):
    """As the published code: float16 (here bfloat16) in training steps alone."""
    options = ("recipe=paper", "trainer.precision=bf16-mixed", "epochs=2")
    cfg = composed(*SMALL, *options, "evaluation_precision=full")
    result = entry.train(cfg)
    assert (result["precision"], result["evaluation_precision"]) == ("bf16-mixed", "32-true")
    model = load_model(Path(cfg.paths.run), torch.device("cpu"))
    data = assemble(cfg).data
    batches = list(data.plain_batches("test", torch.device("cpu")))
    targets = torch.cat([batch["target"] for batch in batches])
    logits = torch.cat([model.logits(batch["image"]) for batch in batches])
    full = torch.nn.functional.cross_entropy(logits, targets).item()
    assert result["test/loss_last"] == pytest.approx(full, abs=1e-6)
    same = entry.train(composed(*SMALL, *options))
    assert same["evaluation_precision"] == "bf16-mixed"
    assert same["test/loss_last"] != pytest.approx(full, abs=1e-6)


def test_counts_without_autocast_are_those_of_float32(composed):
    def counted(*options):
        module = assemble(composed(*SMALL, "recipe=paper", "mapping=blm_plus", *options)).module
        data = assemble(composed(*SMALL, *options)).data
        fitting = make_trainer(
            callbacks=[],
            loggers=[],
            network_precision="32-true",
            accelerator="cpu",
            precision="bf16-mixed" if options else "32-true",
            limit_train_batches=1,
        )
        fitting.fit(module, datamodule=data)
        return module.classifier.label_mapping.weight

    expected = counted()
    assert torch.equal(counted("evaluation_precision=full"), expected)
    assert not torch.equal(counted("evaluation_precision=same"), expected)


def test_the_published_precision_is_that_of_the_device(monkeypatch):
    settings = trainer.Settings(precision="published")
    assert trainer._precision(settings, "32-true") == "32-true"
    monkeypatch.setattr(trainer, "device_type", lambda _: "cuda")
    assert trainer._precision(settings, "bf16-mixed") == "16-mixed"


def test_the_precision_of_tests_is_in_the_key_where_it_is_another_one(composed):
    assert "evaluation_precision" not in identity(composed())
    assert identity(composed("evaluation_precision=full"))["evaluation_precision"] == "full"
    paper = composed("experiment=paper")
    assert (paper.trainer.precision, paper.evaluation_precision) == ("published", "full")
