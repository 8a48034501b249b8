from functools import partial

import pytest
import torch

from smm_lightning.errors import Problems, UserError
from smm_lightning.method.mask_generator import MaskGenerator
from smm_lightning.training.assembly import plan
from smm_lightning.training.loss import CrossEntropy
from smm_lightning.training.optimizer import Group, GroupedOptimizer
from smm_lightning.training.schedule import (
    Constant,
    Cosine,
    Milestones,
    build_schedule,
    resolve_milestones,
)
from smm_lightning.training.training import Training
from tests.reference import equations


def grouped(algorithm=torch.optim.Adam, **groups):
    return GroupedOptimizer(algorithm, {name: Group(*values) for name, values in groups.items()})


def weight():
    return [torch.nn.Parameter(torch.zeros(1))]


def rates(schedule, epochs, **groups):
    """By group, of every epoch."""
    settings = grouped(**groups)
    optimizer = settings.build({name: weight() for name in groups})
    built = build_schedule(schedule, optimizer, settings.groups)
    found = {name: [] for name in groups}
    for _ in range(epochs):
        for group in optimizer.param_groups:
            found[group["name"]].append(group["lr"])
        optimizer.step()
        built.step()
    return found


def test_milestones_of_the_paper_and_of_its_code():
    assert resolve_milestones("paper", 200) == [100, 145]
    assert resolve_milestones("published", 200) == [100, 144]
    assert resolve_milestones("published", 1) == []
    assert resolve_milestones([2, 5], 8) == [2, 5]


@pytest.mark.parametrize("milestones", ["published", "paper", [1, 2, 7]])
def test_rates_equal_their_twin(milestones):
    groups = {"pattern": (0.01, 0.1), "mask_generator": (0.02, 0.5)}
    schedule = Milestones(8, milestones)
    found = rates(schedule, 8, **groups)
    for name, (lr, decay) in groups.items():
        expected = equations.learning_rates(lr, decay, schedule.milestones, 8)
        assert found[name] == pytest.approx(expected)


def test_a_cosine_falls_from_the_rate_towards_nothing_and_equals_torchs():
    found = rates(Cosine(8), 8, pattern=(0.01,))["pattern"]
    torchs = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=8)
    assert found == pytest.approx(rates(torchs, 8, pattern=(0.01,))["pattern"])
    assert found[0] == 0.01
    assert 0 < found[-1] < 0.001


def test_warm_up_rises_in_a_line_before_any_schedule():
    assert rates(Constant(3), 5, pattern=(0.4,))["pattern"] == pytest.approx(
        [0.1, 0.2, 0.3, 0.4, 0.4]
    )
    found = rates(Cosine(10, warmup_epochs=2), 10, pattern=(1.0,))["pattern"]
    assert found[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert found[3:] == pytest.approx(rates(Cosine(8), 8, pattern=(1.0,))["pattern"][1:])
    stepped = rates(Milestones(6, [4], warmup_epochs=1), 6, pattern=(1.0, 0.1))["pattern"]
    assert stepped == pytest.approx([0.5, 1, 1, 1, 0.1, 0.1])


def test_groups_may_be_fewer_than_settings_and_not_more():
    found = grouped(pattern=(0.1,), mask_generator=(0.001,)).build({"mask_generator": weight()})
    assert [(g["name"], g["lr"]) for g in found.param_groups] == [("mask_generator", 0.001)]
    with pytest.raises(UserError, match=r"optimizer.groups: has no settings of .got 'head'"):
        grouped(pattern=(0.1,)).build({"pattern": weight(), "head": weight()})


@pytest.mark.parametrize(
    ("algorithm", "fused"), [("Adam", True), ("AdamW", True), ("SGD", None), ("Adamax", None)]
)
def test_steps_are_one_kernel_where_that_can_skip_any_step(algorithm, fused):
    made = grouped(getattr(torch.optim, algorithm), pattern=(0.1,)).build({"pattern": weight()})
    assert made.param_groups[0].get("fused") is fused
    chosen = partial(getattr(torch.optim, algorithm), weight_decay=1.0)
    assert (
        grouped(chosen, pattern=(0.1,)).build({"pattern": weight()}).param_groups[0].get("fused")
        is fused
    )


def test_groups_do_not_set_options_of_the_algorithm_by_their_decays():
    """Adagrad has an lr_decay of its own, which means something else."""
    made = grouped(torch.optim.Adagrad, pattern=(0.1, 0.5)).build({"pattern": weight()})
    assert made.param_groups[0]["lr_decay"] == 0


@pytest.mark.parametrize(
    ("milestones", "words"),
    [
        ("publishd", "unknown"),
        ([3, 2], "must increase"),
        ([2, 8], "must lie between"),
        ([0, 2], "must lie between"),
    ],
)
def test_milestones_out_of_range_are_refused(milestones, words):
    with pytest.raises(UserError, match=rf"scheduler.milestones: {words}"):
        Milestones(8, milestones)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"],
            r"scheduler: must be a schedule over epochs .got 'ReduceLROnPlateau'",
        ),
        (
            ["scheduler._target_=torch.optim.lr_scheduler.StepLR", "+scheduler.stepsize=1"],
            r"scheduler.stepsize: no such field .got 1.. Did you mean 'step_size'",
        ),
        (["optimizer=sgd", "+optimizer.algorithm.nesterov=2"], r"optimizer.algorithm.nesterov:"),
        (["optimizer.groups.pattern.lr=-1"], r"optimizer.groups.pattern.lr: must be above 0"),
    ],
)
def test_what_cannot_be_built_is_said_before_anything_is_read(composed, overrides, line):
    torchs = overrides[0].startswith("scheduler")
    partly = ["~scheduler.epochs", "~scheduler.milestones", "~scheduler.warmup_epochs"]
    more = [*partly, "+scheduler._partial_=true"] if torchs else []
    with pytest.raises(UserError, match=line):
        plan(composed("backbone=tiny", *overrides, *more))


def test_weighted_classes_have_a_mean_weight_of_one_and_no_batch_matters():
    counts = torch.tensor([6, 3, 1])
    logits, targets = torch.randn(10, 3), torch.tensor([0] * 6 + [1] * 3 + [2])
    plain, balanced = CrossEntropy(), CrossEntropy(class_weights="balanced")
    for loss in (plain, balanced):
        loss.prepare(counts)
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    assert torch.equal(plain(logits, targets), torch.nn.functional.cross_entropy(logits, targets))
    assert torch.allclose(balanced.weights[targets].mean(), torch.tensor(1.0))
    per_class = torch.stack([expected[targets == c].mean() for c in range(3)])
    assert torch.allclose(balanced(logits, targets), per_class.mean())
    halves = [balanced(logits[part], targets[part]) for part in (slice(5), slice(5, 10))]
    assert torch.allclose(sum(halves) / 2, balanced(logits, targets))
    assert "weights" not in balanced.state_dict()


def test_given_weights_are_one_for_each_class():
    loss = CrossEntropy(class_weights=[1.0, 2.0])
    with pytest.raises(UserError, match=r"loss.class_weights: must be one for each of the 3 cl"):
        loss.prepare(torch.tensor([1, 1, 1]))


def test_smoothed_labels_equal_torchs():
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    torchs = torch.nn.CrossEntropyLoss(label_smoothing=0.2)
    assert torch.equal(CrossEntropy(0.2)(logits, targets), torchs(logits, targets))


def test_a_schedule_that_falls_to_nothing_is_taken_and_one_below_it_is_not():
    def training(**options):
        schedule = partial(torch.optim.lr_scheduler.LinearLR, **options)
        return Training(grouped(pattern=(0.01,)), schedule, CrossEntropy())

    training(end_factor=0, total_iters=4).rehearse({"pattern": weight()}, 8)
    below = partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda epoch: 1 - epoch)
    with pytest.raises(UserError, match=r"scheduler: gives rates below 0 in epoch 2"):
        Training(grouped(pattern=(0.01,)), below, CrossEntropy()).rehearse({"pattern": weight()}, 8)


@pytest.mark.parametrize("classes", [1, 2, 10])
def test_losses_over_class_numbers_are_taken(classes):
    for loss in (CrossEntropy(), torch.nn.MultiMarginLoss(), torch.nn.CrossEntropyLoss()):
        Training(grouped(pattern=(0.01,)), Constant(), loss).rehearse_loss(classes)


def test_rates_by_fan_in():
    """3 x 3 kernels on 3, 8, 16, 32 and 64 channels; biases and BatchNorm keep the rate."""
    generator = MaskGenerator()
    settings = GroupedOptimizer(
        torch.optim.Adam,
        {"pattern": Group(0.01), "mask_generator": Group(0.36, 0.5, by_fan_in=True)},
    )
    parameters = {"pattern": weight(), "mask_generator": list(generator.parameters())}
    optimizer = settings.build(parameters)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    fans = {27: 0.36 / 27, 72: 0.005, 144: 0.0025, 288: 0.00125, 576: 0.000625, 1: 0.36}
    expected = {f"mask_generator/{fan}": pytest.approx(rate) for fan, rate in fans.items()}
    assert rates == {"pattern": 0.01, **expected}
    found = [weight for group in optimizer.param_groups for weight in group["params"]]
    assert {id(w) for w in found} == {id(w) for part in parameters.values() for w in part}
    assert len(found) == 1 + len(parameters["mask_generator"])
    schedule = build_schedule(Milestones(4, [2]), optimizer, settings.groups)
    for _ in range(2):
        optimizer.step()
        schedule.step()
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates["pattern"] == 0.01
    assert rates["mask_generator/576"] == pytest.approx(0.5 * 0.000625)


def test_a_state_of_other_parameter_groups_is_refused():
    def nodes(**group):
        algorithm = {"_target_": "torch.optim.Adam"}
        groups = {"mask_generator": {"lr": 0.01, **group}}
        return {"optimizer": {"algorithm": algorithm, "groups": groups}}

    def problems_of(then, now):
        problems = Problems()
        settings = grouped(mask_generator=(0.01,))
        training = Training(settings, Constant(), CrossEntropy(), nodes=now)
        training.require_continuation_of(then, problems)
        return problems.lines

    whole, split = nodes(), nodes(by_fan_in=True)
    assert problems_of(whole, whole) == problems_of(split, split) == []
    assert problems_of(whole, nodes(by_fan_in=False)) == []
    (line,) = problems_of(whole, split)
    assert line == (
        "ckpt_path: the checkpoint was trained with by_fan_in=False of mask_generator, "
        "whose state it holds. Now it is True."
    )
