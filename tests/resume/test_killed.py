"""A run that is killed at any instant and started again ends bit-identical."""

import signal

import pytest

from tests import faults
from tests.resume.killing import BASE, differences, outcome, run_killed, run_through, start

CASES = {
    "smm ilm": ("method=smm", "mapping=ilm"),
    "smm ilm, in mid-epoch": ("method=smm", "mapping=ilm", "callbacks.last.every_n_steps=2"),
    "smm ilm, 2 workers": ("method=smm", "dataset.num_workers=2", "callbacks.last.every_n_steps=2"),
    "smm running": ("mapping.refresh=running", "callbacks.last.every_n_steps=1"),
    "smm flm": ("mapping=flm", "callbacks.last.every_n_steps=3"),
    "full ilm": ("method=full", "callbacks.last.every_n_steps=2"),
    "full rlm": ("method=full", "mapping=rlm", "callbacks.last.every_n_steps=4"),
    "pad ilm": ("method=pad", "dataset.native_size=16", "callbacks.last.every_n_steps=2"),
    "only_mask flm": ("method=only_mask", "mapping=flm", "dataset.num_workers=2"),
    "one channel, tested every second epoch": (
        *("method=smm_single_channel", "trainer.check_val_every_n_epoch=2"),
        "callbacks.last.every_n_steps=2",
    ),
    "cosine, warm-up, smoothed, balanced, clipped": (
        *("method=full", "optimizer=sgd", "scheduler=cosine", "scheduler.warmup_epochs=1"),
        *("loss.label_smoothing=0.1", "loss.class_weights=balanced"),
        *("trainer.gradient_clip_val=1", "callbacks.last.every_n_steps=2"),
    ),
    "a temperature, a mapping that holds still": (
        *("method=smm", "method.start=full", "mapping.refresh=running", "mapping.refit_until=3"),
        *("mapping.temperature=auto", "callbacks.last.every_n_steps=2"),
        "optimizer.groups.mask_generator.by_fan_in=true",
    ),
    "a schedule of torch's": (
        *("method=smm", "scheduler=constant", "~scheduler.warmup_epochs"),
        *("scheduler._target_=torch.optim.lr_scheduler.CyclicLR", "+scheduler._partial_=true"),
        *("+scheduler.base_lr=0.001", "+scheduler.max_lr=0.1", "+scheduler.step_size_up=2"),
        *("+scheduler.cycle_momentum=false", "callbacks.last.every_n_steps=2"),
    ),
}
CASES |= {
    "blm running, fine-tuned": (
        *("method=smm", "mapping=blm", "mapping.refresh=running", "adapter=full"),
        "callbacks.last.every_n_steps=2",
    ),
    "blm_plus": ("method=full", "mapping=blm_plus", "mapping.top=3", "dataset.num_workers=2"),
    "a head": ("method=smm", "mapping=fc", "callbacks.last.every_n_steps=2"),
    "a learned mapping alone": ("method=none", "mapping=linear", "callbacks.last.every_n_steps=3"),
    "nothing trained": ("method=none", "callbacks.last.every_n_steps=2"),
}
QUICK = {"smm ilm, in mid-epoch": 2, "smm ilm, 2 workers": 1, "smm running": 3, "full rlm": 3}
QUICK |= {"cosine, warm-up, smoothed, balanced, clipped": 2, "a schedule of torch's": 2}
QUICK |= {"a temperature, a mapping that holds still": 3, "blm running, fine-tuned": 3}


def compare(tmp_path, options, kills, seed, **arguments):
    roots = [f"paths.root={tmp_path}/{name}" for name in ("whole", "cut")]
    shared = (*BASE, *options, f"paths.image_cache={tmp_path}/image_cache")
    log = tmp_path / "log"
    run_through((*shared, roots[0]), log)  # builds the cache
    seconds = run_through((*shared, roots[0], "force=true"), log)
    met = run_killed((*shared, roots[1]), log, kills, seconds, seed, **arguments)
    return met, differences(outcome(tmp_path / "whole"), outcome(tmp_path / "cut"))


@pytest.mark.parametrize("case", QUICK)
def test_killed_runs_end_bit_identical(tmp_path, case):
    met, found = compare(tmp_path, CASES[case], kills=QUICK[case], seed=len(case))
    assert met >= 1
    assert found == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", CASES)
def test_killed_runs_end_bit_identical_at_length(tmp_path, case, seed, record_property):
    met, found = compare(tmp_path, CASES[case], kills=2, seed=100 + seed)
    record_property("kills", met)
    assert found == []


def test_asked_to_end_they_save_and_end_bit_identical(tmp_path):
    """SIGTERM, with checkpoints after epochs only: the step at hand is saved, too."""
    options = CASES["smm ilm"]
    met, found = compare(tmp_path, options, kills=2, seed=3, number=signal.SIGTERM)
    assert met >= 1
    assert found == []


@pytest.mark.parametrize("derived", [True, False], ids=["derived", "stored"])
def test_only_derived_randomness_survives_a_kill(tmp_path, derived):
    """The control: an order from PyTorch's generator, which no checkpoint holds, does not."""
    shared = (
        *BASE,
        "method=full",
        "callbacks.last.every_n_steps=2",
        f"paths.image_cache={tmp_path}/b",
    )
    whole, cut = ((*shared, f"paths.root={tmp_path}/{name}") for name in ("whole", "cut"))
    log = tmp_path / "log"
    run_through(whole, log, derived=derived)
    fault = faults.overrides({0: "sigkill"}, epoch=2, step=3)
    process = start((*cut, *fault), log, derived=derived)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    run_through(cut, log, derived=derived)
    assert "going on from" in log.read_text()
    found = differences(outcome(tmp_path / "whole"), outcome(tmp_path / "cut"))
    assert any("weights" in name for name in found) != derived
    assert (found == []) == derived
