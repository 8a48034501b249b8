import math

import pytest
import torch

from smm_lightning.errors import UserError
from smm_lightning.optimizer import GroupSettings, OptimizerSpec, resolve_milestones
from tests.reference import equations


def spec(epochs=8, milestones="published", pattern=(0.01, 0.1), generator=(0.001, 1.0)):
    return OptimizerSpec(epochs, milestones, GroupSettings(*pattern), GroupSettings(*generator))


def test_milestones_of_the_paper_and_of_its_code():
    assert resolve_milestones("paper", 200) == [100, 145]
    assert resolve_milestones("published", 200) == [100, 144]
    assert resolve_milestones("published", 1) == []
    assert resolve_milestones([2, 5], 8) == [2, 5]


@pytest.mark.parametrize("milestones", ["published", "paper", [1, 2, 7]])
def test_rates_equal_their_twin_and_torch(milestones):
    settings = {"pattern": (0.01, 0.1), "mask_generator": (0.02, 0.5)}
    built = spec(8, milestones, settings["pattern"], settings["mask_generator"])
    weights = {name: [torch.nn.Parameter(torch.zeros(1))] for name in settings}
    adam, schedule = built.build(weights)
    found = {name: [] for name in settings}
    for _ in range(8):
        for group in adam.param_groups:
            found[group["name"]].append(group["lr"])
        adam.step()
        schedule.step()
    for name, (lr, decay) in settings.items():
        expected = equations.learning_rates(lr, decay, built.milestones, 8)
        assert found[name] == pytest.approx(expected)


def test_groups_may_be_fewer_than_settings():
    adam, _ = spec().build({"mask_generator": [torch.nn.Parameter(torch.zeros(1))]})
    assert [(group["name"], group["lr"]) for group in adam.param_groups] == [
        ("mask_generator", 0.001)
    ]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"epochs": 0}, "epochs"),
        ({"pattern": (0.0, 0.1)}, "optimizer.pattern.lr"),
        ({"pattern": (-1.0, 0.1)}, "optimizer.pattern.lr"),
        ({"generator": (math.nan, 0.1)}, "optimizer.mask_generator.lr"),
        ({"generator": (0.1, 0.0)}, "optimizer.mask_generator.decay"),
        ({"milestones": "publishd"}, "optimizer.milestones"),
        ({"milestones": [3, 2]}, "optimizer.milestones"),
        ({"milestones": [2, 8]}, "optimizer.milestones"),
        ({"milestones": [0, 2]}, "optimizer.milestones"),
    ],
)
def test_values_out_of_range_are_refused(arguments, field):
    with pytest.raises(UserError) as error:
        spec(**arguments)
    assert error.value.problems[0].startswith(f"{field}: ")
