"""Steps in micro-batches are the steps of whole batches."""

import json
from pathlib import Path

import pytest
import torch

from smm_lightning.backbone import Backbone
from smm_lightning.errors import UserError
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.train import train
from smm_lightning.training.finite_loss import FiniteLoss
from smm_lightning.training.micro_batch import largest, step_in_parts
from tests.assembled import assemble
from tests.test_habits import SMALL

CHOICES = {
    "a counted mapping": ("method=smm",),
    "a head beside": ("method=smm", "mapping=fc"),
    "a head alone": ("method=none", "mapping=fc"),
    "weights that are smoothed": ("method=full", "loss.label_smoothing=0.1"),
    "classes that weigh more": ("method=full", "loss.class_weights=balanced"),
    "fine-tuning": ("method=smm", "mapping=fc", "adapter=full"),
    "lora": (
        *("method=none", "mapping=fc", "adapter=lora", "backbone=timm"),
        *("backbone.model=test_vit", "backbone.pretrained=false"),
    ),
}


def gradients_of(module, step):
    groups = module.classifier.parameter_groups().values()
    return torch.autograd.grad(step, [weight for group in groups for weight in group])


@pytest.mark.parametrize("words", CHOICES.values(), ids=CHOICES)
def test_loss_logits_and_gradients_are_those_of_the_whole_batch(composed, words):
    module = assemble(composed(*SMALL, *words, "trainer.precision=64-true")).module.double()
    classifier = module.classifier
    data = torch.Generator().manual_seed(0)
    side = classifier.input_size
    images = torch.rand(20, 3, side, side, generator=data, dtype=torch.float64)
    targets = torch.randint(10, (20,), generator=data)
    classifier.refit([(images, targets)])
    with torch.no_grad():  # a pattern of zeros gives the mask no gradient
        for group in classifier.parameter_groups().values():
            for weight in group:
                weight.add_(torch.rand(weight.shape, generator=data, dtype=weight.dtype), alpha=0.1)
    source = classifier.source(images)
    logits = classifier.mapped(source)
    loss = module.loss(logits, targets)
    expected = gradients_of(module, loss)
    for size, scale in ((1, 1.0), (7, torch.tensor(65536.0)), (64, 1.0)):
        prompted = classifier.input_transform(images)
        step = step_in_parts(classifier, module.loss, prompted, targets, size, scale)
        torch.testing.assert_close(step.loss, loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(step.source, source, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(step.logits, logits, rtol=1e-9, atol=1e-9)
        assert not step.logits.requires_grad
        for one, other in zip(gradients_of(module, 3 * step.loss), expected, strict=True):
            torch.testing.assert_close(one, 3 * other, rtol=1e-8, atol=1e-12)


def test_the_network_never_sees_more_than_a_part_while_it_trains(composed, monkeypatch):
    seen = sizes_in_training(monkeypatch)
    result = train(composed(*SMALL, "micro_batch=7"))
    assert set(seen) == {7, 6}  # of 20
    assert result["micro_batch"] == 7


def sizes_in_training(monkeypatch, most=None):
    """Notes how many images the network gets with gradients; above ``most`` memory is out."""
    seen, forward = [], Backbone.forward

    def noted(backbone, images):
        if torch.is_grad_enabled() and images.requires_grad:
            seen.append(len(images))
            if most is not None and len(images) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(backbone, images)

    monkeypatch.setattr(Backbone, "forward", noted)
    return seen


def outcome(cfg):
    result = train(cfg)
    state = read_checkpoint(Path(cfg.paths.run) / "last.ckpt")["state_dict"]
    rows = [{n: v for n, v in r.items() if not n.startswith("time/")} for r in result["history"]]
    return result, rows, state


@pytest.mark.parametrize(
    "words",
    [("method=smm",), ("method=smm", "mapping=blm", "mapping.refresh=running"), ("mapping=fc",)],
    ids=["ilm", "running", "fc"],
)
def test_a_run_is_the_same_run(composed, tmp_path, words):
    words = (*SMALL, *words, "epochs=3", "trainer.precision=64-true", "+backbone.folded=false")
    whole, rows, state = outcome(composed(*words, f"paths.run={tmp_path}/whole"))
    parts, others, another = outcome(
        composed(*words, f"paths.run={tmp_path}/parts", "micro_batch=6")
    )
    assert whole["run_key"] == parts["run_key"]
    assert whole["mapping"] == parts["mapping"] or "fc" in words[-4]
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, rel=1e-7)
    for name, value in state.items():
        torch.testing.assert_close(value, another[name], rtol=1e-6, atol=1e-9, msg=name)


def test_auto_halves_until_it_fits_and_remembers(composed, monkeypatch):
    seen = sizes_in_training(monkeypatch, most=6)
    cfg = composed(*SMALL, "micro_batch=auto", "epochs=2")
    stop = monkeypatch.context()
    with stop as patched:
        patched.setattr(
            FiniteLoss, "watch", lambda *_, **__: (_ for _ in ()).throw(KeyError("cut"))
        )
        with pytest.raises(KeyError):
            train(cfg)
    assert seen[:3] == [20, 10, 5]
    assert set(seen[3:]) == {5}
    noted = Path(cfg.paths.run) / "micro_batch.json"
    assert json.loads(noted.read_text()) == {"micro_batch": 5}
    seen.clear()
    assert train(cfg)["micro_batch"] == 5
    assert set(seen) == {5}  # nothing was tried again
    noted.write_text("[]")
    assert train(composed(*SMALL, "micro_batch=auto", "epochs=2", "force=true"))["micro_batch"] == 5


def test_what_auto_tries_leaves_no_trace(composed, tmp_path):
    words = (*SMALL, "epochs=2")
    _, rows, state = outcome(composed(*words, f"paths.run={tmp_path}/auto", "micro_batch=auto"))
    _, others, another = outcome(composed(*words, f"paths.run={tmp_path}/twenty", "micro_batch=20"))
    assert rows == others
    assert all(torch.equal(value, another[name]) for name, value in state.items())


def test_where_nothing_is_trained_there_is_nothing_to_collect(composed):
    words = (*SMALL, "method=none", "mapping=blm")
    one, other = (train(composed(*words, f"micro_batch={size}")) for size in ("null", "auto"))
    assert one["test/acc_last"] == other["test/acc_last"]
    assert one["train/loss_last"] == pytest.approx(other["train/loss_last"], rel=1e-6)


def test_where_not_one_image_fits_the_run_says_so(composed, monkeypatch):
    sizes_in_training(monkeypatch, most=0)
    with pytest.raises(UserError, match=r"micro_batch: one image is more than the memory"):
        train(composed(*SMALL, "micro_batch=auto"))


def test_the_largest_that_fits():
    def trial(size):
        tried.append(size)
        if size > 3:
            raise torch.OutOfMemoryError

    tried = []
    assert largest(trial, 25) == 2
    assert tried == [25, 13, 7, 4, 2]


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "some", "true"])
def test_wrong_sizes_are_refused(composed, value):
    with pytest.raises(UserError, match=r"micro_batch: must be"):
        train(composed(*SMALL, f"micro_batch={value}"))


def test_two_ranks_take_the_smaller_number(composed, tmp_path):
    from tests.programs import run_program

    words = (*SMALL, "epochs=1", "trainer=ddp", "trainer.accelerator=cpu", "micro_batch=auto")
    done = run_program(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert json.loads((folder / "result.json").read_text())["micro_batch"] == 10
