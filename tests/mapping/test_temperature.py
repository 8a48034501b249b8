import copy
import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from smm_lightning import ReprogrammedClassifier
from smm_lightning.errors import UserError
from smm_lightning.mapping import LabelMapping, OneToOneMapping, RandomMapping, best_temperature
from tests.test_use import small_network

CPU = torch.device("cpu")
NAMES = ["dark", "bright"]


def answers(count=300, classes=7, scale=9.0, seed=0):
    """Overconfident: the right class is likelier, but not by as much as the logits say."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (count,), generator=generator)
    logits = scale * torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), targets] += 0.5 * scale
    return logits, targets


def mean_loss(logits, targets, temperature):
    chances = log_softmax(logits.double().numpy() / temperature, axis=1)
    return -chances[np.arange(len(targets)), targets.numpy()].mean()


def test_two_classes_have_a_temperature_in_closed_form():
    """Right in 3 of 4 with a margin of 5: the best says a chance of 3/4."""
    logits = torch.tensor([[5.0, 0.0]]).repeat(400, 1)
    targets = torch.zeros(400, dtype=torch.int64)
    targets[:100] = 1
    found = best_temperature([(logits, targets)], CPU)
    assert found == pytest.approx(5 / math.log(3), rel=1e-5)


def test_no_other_temperature_is_better():
    logits, targets = answers()
    found = best_temperature([(logits, targets)], CPU)
    best = mean_loss(logits, targets, found)
    assert best < math.log(7) < mean_loss(logits, targets, 1)
    for other in np.geomspace(0.1, 1000, 400):
        assert best <= mean_loss(logits, targets, other) + 1e-9


def test_neither_batches_nor_ranks_change_it():
    logits, targets = answers()
    whole = best_temperature([(logits, targets)], CPU)
    parts = list(zip(logits.split(64), targets.split(64), strict=True))
    assert best_temperature(parts, CPU) == pytest.approx(whole, rel=1e-6)
    # As two ranks with the same images.
    assert best_temperature(parts, CPU, lambda total: 2 * total) == pytest.approx(whole, rel=1e-6)


def test_classes_that_logits_separate_have_a_small_one_within_bounds():
    """The loss falls to 0 long before the temperature does."""
    logits, targets = torch.eye(5) * 8, torch.arange(5)
    found = best_temperature([(logits, targets)], CPU)
    assert 0.1 <= found < 1
    assert mean_loss(logits, targets, found) < 1e-12


def test_logits_that_are_not_finite_have_none():
    logits, targets = answers()
    logits[3, 2] = float("nan")
    with pytest.raises(UserError, match=r"mapping.temperature: has no best value"):
        best_temperature([(logits, targets)], CPU)


def wrapped(**fields):
    mapping = {"name": "ilm", **fields}
    return ReprogrammedClassifier.wrap(small_network(), NAMES, image_size=32, mapping=mapping)


def batches(count=64):
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(count) % 2
    images = 0.6 * torch.rand(count, 3, 32, 32, generator=generator)
    return [(images + 0.2 * targets.view(-1, 1, 1, 1), targets)]


def test_refit_fits_it_once_and_predictions_stay():
    torch.manual_seed(0)
    auto = wrapped(temperature="auto").eval()
    plain = copy.deepcopy(auto.label_mapping)
    (images, targets), *_ = batches()
    assert not auto.fitted
    with pytest.raises(RuntimeError, match="label mapping used before"):
        auto(images)
    auto.refit(batches())
    temperature = auto.temperature.item()
    plain.load_state_dict(auto.label_mapping.state_dict())
    with torch.no_grad():
        logits = plain(auto.source(images))
        torch.testing.assert_close(auto(images), logits / temperature)
        assert torch.equal(auto.probabilities(images), auto(images).softmax(1))
    assert temperature == pytest.approx(best_temperature([(logits, targets)], CPU), rel=1e-6)
    assert auto(images).dtype == torch.float32
    auto.refit([(images.flip(0), targets)])
    assert auto.temperature.item() == temperature


def test_a_number_is_taken_as_it_is():
    torch.manual_seed(0)
    one, four = wrapped(temperature=1).eval(), wrapped(temperature=4).eval()
    four.input_transform.load_state_dict(one.input_transform.state_dict())
    for model in (one, four):
        model.refit(batches())
    (images, _), *_ = batches()
    assert torch.equal(one(images), one.label_mapping(one.source(images)))
    assert torch.equal(four(images), one(images) / 4)
    assert (one.temperature.item(), four.temperature.item()) == (1, 4)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "warm", None])
def test_what_is_no_temperature_is_refused(value):
    model, mapping = wrapped(), OneToOneMapping(20, 2, "epoch", temperature=value)
    with pytest.raises(UserError, match=r"mapping.temperature: must be a number above 0, or auto"):
        ReprogrammedClassifier(model.input_transform, model.backbone, mapping, NAMES)
    with pytest.raises(UserError, match=r"^mapping.temperature: must be"):
        wrapped(temperature=value)


def test_it_is_kept_whole_under_every_precision_and_in_a_state():
    auto = wrapped(temperature="auto")
    auto.refit(batches())
    value = auto.temperature.item()
    for moved in (auto.to(torch.bfloat16), copy.deepcopy(auto).double(), auto.float()):
        assert moved.temperature.dtype == torch.float64
        assert moved.temperature.item() == value
    other = wrapped(temperature="auto")
    other.load_state_dict(auto.state_dict())
    assert other.fitted
    assert other.temperature.item() == value
    other.load_state_dict(wrapped(temperature="auto").state_dict())
    assert not other.fitted
    for wrong in (0.0, -1.0, math.inf):
        damaged = {**auto.state_dict(), "temperature": torch.tensor(wrong)}
        with pytest.raises(UserError, match=r"temperature: is not above 0"):
            other.load_state_dict(damaged)


def test_a_random_mapping_gets_one_and_stays():
    model = wrapped()
    model = ReprogrammedClassifier(
        model.input_transform, model.backbone, RandomMapping(20, 2, 3, temperature="auto"), NAMES
    )
    index = model.label_mapping.index.clone()
    assert model.refit(batches()) == 0
    assert torch.equal(model.label_mapping.index, index)
    assert 0 < model.temperature.item() < math.inf


class Trained(LabelMapping):
    def __init__(self, inputs, classes):
        super().__init__(temperature="auto")
        self.layer = nn.Linear(inputs, classes)

    def forward(self, source):
        return self.layer(source)


def test_a_mapping_that_is_trained_has_its_own():
    model = wrapped()
    with pytest.raises(UserError, match=r"mapping.temperature: .* a mapping that is trained"):
        ReprogrammedClassifier(model.input_transform, model.backbone, Trained(20, 2), NAMES)


@pytest.mark.parametrize(
    ("refresh", "until", "due"),
    [
        ("never", None, []),
        ("once", None, [0]),
        ("epoch", None, [0, 1, 2, 3]),
        ("epoch", 1, [0]),
        ("epoch", 3, [0, 1, 2]),
        ("running", 2, [0, 1]),
    ],
)
def test_when_the_mapping_is_taken_anew(refresh, until, due):
    mapping = OneToOneMapping(5, 2, refresh, refit_until=until)
    assert [epoch for epoch in range(4) if mapping.is_due(epoch)] == due
