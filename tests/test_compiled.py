import logging
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch.optim import SGD

from smm_lightning.method import use_kernel
from smm_lightning.training import EpochRecorder
from smm_lightning.training.compiled import Compiled
from tests.assembled import assemble, trainer_of

SMALL = ("backbone=tiny", "trainer=cpu", "dataset.train_images=70", "callbacks=none", "epochs=1")


def trained(composed, *options):
    cfg = composed(*SMALL, "trainer.precision=64-true", *options)
    parts, recorder = assemble(cfg), EpochRecorder(None)
    trainer_of(cfg, [recorder]).fit(parts.module, datamodule=parts.data)
    return parts.module, recorder.history[-1]


@pytest.mark.slow  # the C++ compiler takes a minute or two
def test_a_compiled_run_is_an_eager_run(composed):
    eager, row = trained(composed)
    fast, others = trained(composed, "compiled=true")
    assert not eager.was_compiled
    assert fast.was_compiled
    # In float64 the order of sums shows below 1e-12; one step of Adam is 1e-2.
    assert row["train/loss"] == pytest.approx(others["train/loss"], rel=0, abs=1e-9)
    assert row["val/acc"] == others["val/acc"]
    states = [module.classifier.input_transform.state_dict() for module in (eager, fast)]
    torch.testing.assert_close(*states, rtol=0, atol=1e-9)


def test_only_whole_batches_are_compiled():
    seen = []

    def double(images):
        seen.append("plain")
        return 2 * images

    compiled = Compiled(double, {4})
    compiled._fast = lambda images: 2 * images
    assert torch.equal(compiled(torch.ones(4)), torch.full((4,), 2.0))
    assert seen == []
    assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 2.0))
    assert seen == ["plain"]


def test_a_compiler_that_fails_costs_speed_and_not_the_run(composed, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("no compiler\nand a long story")

    monkeypatch.setattr(Compiled, "__call__", broken)
    with caplog.at_level(logging.WARNING):
        module, row = trained(composed, "compiled=true")
    assert not module.was_compiled
    assert "train/loss" in row
    assert "torch.compile failed, training goes on without it" in caplog.text
    assert "RuntimeError: no compiler" in caplog.text
    assert "long story" not in caplog.text


def test_a_compiler_that_gives_other_gradients_is_not_used(composed, monkeypatch, caplog):
    def against(function, **_):
        def compiled(images):
            logits = function(images)
            return 2 * logits.detach() - logits

        return compiled

    expected, _ = trained(composed)
    monkeypatch.setattr("smm_lightning.training.compiled.torch.compile", against)
    with caplog.at_level(logging.WARNING):
        module, _ = trained(composed, "compiled=true")
    assert not module.was_compiled
    assert "it computes other gradients (agreement -1.00)" in caplog.text
    states = [each.classifier.input_transform.state_dict() for each in (module, expected)]
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_prompt_and_network_are_one_graph_with_weights_that_stay_in_place(composed):
    """What CUDA graphs need: no breaks, and no weight that is copied for every step."""
    module = assemble(composed(*SMALL)).module.train()
    inputs = {}

    def backend(graph, examples):
        names = [node.name for node in graph.graph.nodes if node.op == "placeholder"]
        inputs.update(zip(names, examples, strict=True))
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(module.classifier.source, backend=backend, fullgraph=True)
    compiled(torch.rand(4, 3, 32, 32))
    moving = [n for n, v in inputs.items() if not hasattr(v, "_dynamo_static_input_type")]
    assert moving == ["l_images_"]
    assert sum("backbone_body" in name for name in inputs) == 3
    assert sum("backbone_head" in name for name in inputs) == 2


@pytest.mark.parametrize(
    "words", [(), ("mapping=fc",), ("mapping=blm", "mapping.refresh=running"), ("micro_batch=3",)]
)
def test_a_training_step_waits_for_no_device(composed, monkeypatch, words):
    """On a device without numbers: to ask for one would fail, as it would make a GPU wait."""
    module = assemble(composed(*SMALL, *words)).module
    classifier = module.classifier
    classifier.refit([(torch.rand(20, 3, 32, 32), torch.arange(20) % 10)])
    use_kernel(classifier, fast=True)
    optimizer = SGD([{"params": [torch.zeros(())], "name": "pattern"}], lr=0.1)
    optimizer.param_groups[0]["fused"] = True  # as on a GPU
    module._trainer = SimpleNamespace(
        optimizers=[optimizer],
        is_last_batch=False,
        precision_plugin=SimpleNamespace(),
        is_global_zero=True,
        fast_dev_run=False,
        progress_bar_callback=None,
        current_epoch=0,
    )
    module.log = lambda *_, **__: None
    module.train().to("meta")
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none on meta
    images = torch.empty(7, 3, 32, 32, device="meta")
    targets = torch.empty(7, dtype=torch.int64, device="meta")
    for number in (1, 2):  # every fiftieth step is looked at
        loss = module.training_step({"image": images, "target": targets}, number)
        loss.backward()
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors"):
        loss.item()
    groups = classifier.parameter_groups().values()
    assert all(weight.grad.is_meta for group in groups for weight in group)
