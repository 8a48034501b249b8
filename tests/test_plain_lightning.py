"""The module under Lightning's own trainer, with loaders that know nothing of it."""

import copy
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smm_lightning import ReprogrammedClassifier
from smm_lightning.classifier import learned
from smm_lightning.errors import UserError
from smm_lightning.mapping import LabelMapping
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.train import train
from smm_lightning.training import Training
from smm_lightning.training.loss import CrossEntropy
from smm_lightning.training.module import ReprogrammingModule
from smm_lightning.training.optimizer import Group, GroupedOptimizer
from smm_lightning.training.schedule import Constant
from tests.assembled import assemble
from tests.test_train import SMALL
from tests.test_use import small_network

NAMES = ["dark", "bright"]


def loader(count=40, **options):
    targets = torch.arange(count) % 2
    images = torch.rand(count, 3, 32, 32) * 0.4 + 0.5 * targets.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(images, targets), batch_size=10, **options)


def module_of(network=None):
    network = small_network() if network is None else network
    groups = dict.fromkeys(("pattern", "mask_generator"), Group(0.01))
    training = Training(GroupedOptimizer(torch.optim.Adam, groups), Constant(), CrossEntropy())
    return ReprogrammingModule(wrapped(network), training)


def wrapped(network, **options):
    return ReprogrammedClassifier.wrap(network, NAMES, image_size=32, **options)


class Plain(L.LightningDataModule):
    def train_dataloader(self):
        return loader(shuffle=True)

    def val_dataloader(self):
        return loader()


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:.*available but not used")
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("data", ["loaders", "workers", "datamodule"])
def test_a_trainer_with_its_defaults_fits_validates_tests_and_predicts(tmp_path, data):
    """The check of validation before the first epoch included, when there is no mapping yet."""
    torch.manual_seed(0)
    module = module_of()
    trainer = L.Trainer(accelerator="cpu", max_epochs=4, default_root_dir=tmp_path)
    if data == "datamodule":
        trainer.fit(module, datamodule=Plain())
    else:
        options = {"num_workers": 2, "persistent_workers": True} if data == "workers" else {}
        trainer.fit(module, loader(shuffle=True, **options), loader())
    assert trainer.callback_metrics["val/acc"] > 0.9
    assert trainer.validate(module, loader(), verbose=False)[0]["val/acc"] > 0.9
    assert trainer.test(module, loader(), verbose=False)[0]["test/acc"] > 0.9
    confidences = torch.cat(trainer.predict(module, loader(20)))
    assert confidences.shape == (20, 2)
    torch.testing.assert_close(confidences.sum(1), torch.ones(20))
    path = trainer.checkpoint_callback.best_model_path
    again = module_of()
    trainer = L.Trainer(accelerator="cpu", max_epochs=6, default_root_dir=tmp_path, logger=False)
    trainer.fit(again, loader(shuffle=True), loader(), ckpt_path=path, weights_only=True)
    assert trainer.current_epoch == 6
    options = {"precision": "bf16-mixed", "default_root_dir": tmp_path, "logger": False}
    half = L.Trainer(accelerator="cpu", **options)  # which only a training must not change
    found = half.test(again, loader(), verbose=False, ckpt_path=path, weights_only=True)
    assert found[0]["test/acc"] > 0.9


def test_a_module_is_copied_and_saved(tmp_path, composed):
    module = assemble(composed(*SMALL, "mapping=rlm", "recipe=paper")).module.eval()
    images = torch.rand(2, 3, 32, 32)
    expected = module(images)
    torch.save(module, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    for one in (copy.deepcopy(module), loaded):
        assert torch.equal(one(images), expected)


class LargeValues(nn.Module):
    """Logits that differ by less than bfloat16 can say."""

    def __init__(self):
        super().__init__()
        self.features, self.classifier = nn.Flatten(), nn.Linear(3 * 32 * 32, 20)
        nn.init.normal_(self.classifier.weight, std=1e-3)
        nn.init.constant_(self.classifier.bias, 8.0)

    def forward(self, images):
        return self.classifier(self.features(images))


def test_the_largest_logit_is_found_in_float32_under_autocast():
    torch.manual_seed(0)
    model = module_of(LargeValues()).classifier.eval()
    torch.nn.init.normal_(model.input_transform.pattern)
    images = torch.rand(50, 3, 32, 32)
    with torch.no_grad():
        exact = model.source(images)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.source(images)
    assert found.dtype == torch.float32
    assert all(len(row.unique()) == 20 for row in found)
    assert any(len(row.unique()) < 20 for row in exact.bfloat16())


def test_features_are_what_the_head_takes():
    backbone = module_of().classifier.backbone
    images = torch.rand(2, 3, 32, 32)
    features = backbone.features(images)
    assert features.shape == (2, 32)
    assert torch.equal(backbone.head(features), backbone(images))


class HeadTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 20)), None
        self.fc = nn.Linear(20, 20)

    def forward(self, images):
        return self.fc(self.fc(self.body(images)).relu())


class ScaledInPlace(HeadTwice):
    def forward(self, images):
        logits = self.fc(self.body(images))
        logits *= 10
        return logits


class Alias(HeadTwice):
    def __init__(self):
        super().__init__()
        self.head = self.fc

    def forward(self, images):
        return self.head(self.body(images))


class LooksAtItsHead(HeadTwice):
    def forward(self, images):
        return self.fc(self.body(images).to(self.fc.weight.dtype))


class Tied(HeadTwice):
    def __init__(self):
        super().__init__()
        self.middle = nn.Linear(20, 20)
        self.middle.weight = self.fc.weight

    def forward(self, images):
        return self.fc(self.middle(self.body(images)))


@pytest.mark.parametrize("kind", [HeadTwice, ScaledInPlace, Alias, LooksAtItsHead, Tied])
def test_a_network_that_is_more_than_body_and_head_stays_whole(kind):
    torch.manual_seed(0)
    network = kind().eval()
    images = torch.rand(3, 3, 32, 32)
    expected = network(images)
    backbone = module_of(network).classifier.backbone
    assert backbone.head is None
    assert torch.equal(backbone(images), expected)
    with pytest.raises(UserError, match=r"backbone: does not end with a linear layer"):
        backbone.features(images)


class OwnKind(nn.Linear):
    pass


class Unusual(HeadTwice):
    def __init__(self):
        super().__init__()
        self.fc = OwnKind(20, 20)

    def forward(self, images):
        return self.fc(self.body(images))


def test_the_head_can_be_named():
    network, images = Unusual().eval(), torch.rand(3, 3, 32, 32)
    expected = network(images)
    whole = module_of(network).classifier.backbone
    assert whole.head is None
    named = wrapped(network, classifier_layer="fc").backbone
    assert named.width("features") == 20
    assert torch.equal(named.head(named.features(images)), expected)
    for layer, message in (
        ("fx", r"no such linear layer \(got 'fx'\). Did you mean 'fc'\?"),
        ("body", r"no such linear layer"),
        ("body.1", r"the network's answer is not that of this layer alone"),
    ):
        with pytest.raises(UserError, match=rf"backbone.classifier_layer: .*{message}"):
            wrapped(network, classifier_layer=layer)


class Probe(LabelMapping):
    """A trained layer on the features."""

    reads = "features"

    def __init__(self, inputs, classes):
        super().__init__()
        self.layer = nn.Linear(inputs, classes)
        nn.init.zeros_(self.layer.weight)

    def forward(self, source):
        return self.layer(source)


def test_a_mapping_of_features_is_trained_by_the_command(composed):
    groups = "{_target_: smm_lightning.training.Group, lr: 0.01}"
    cfg = composed(
        *SMALL,
        *("~mapping", "+mapping.name=probe"),
        f"+mapping._target_={Probe.__module__}.Probe",
        f"+optimizer.groups.mapping={groups}",
    )
    result = train(cfg)
    assert result["params/mapping"] == 32 * 10 + 10
    stored = read_checkpoint(Path(cfg.paths.run) / "last.ckpt")["state_dict"]
    trained = learned(stored)["label_mapping.layer.weight"]
    assert trained.shape == (10, 32)
    assert (trained != 0).any()


def test_a_count_that_breaks_off_is_forgotten():
    model = module_of().classifier
    good = (torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(UserError, match=r"targets: must be from 0 to 1"):
        model.refit([good, (good[0], good[1] + 5)])
    assert model.label_mapping.statistics is None


def test_a_mapping_that_counts_the_steps_goes_on_only_as_such(composed):
    first = assemble(composed(*SMALL, "mapping.refresh=running")).module
    second = assemble(composed(*SMALL)).module
    for module in (first, second):
        module._trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    checkpoint = {}
    first.on_save_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"ckpt_path: the checkpoint has another refresh"):
        second.on_load_checkpoint(checkpoint)


def test_a_training_at_another_temperature_does_not_go_on(composed):
    modules = [assemble(composed(*SMALL, f"mapping.temperature={t}")).module for t in (1, "auto")]
    for module in modules:
        module._trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    checkpoint = {}
    modules[0].on_save_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"has another temperature than this run's 'auto' .got 1"):
        modules[1].on_load_checkpoint(checkpoint)
