"""``method=none``: the bare image, and runs in which nothing is trained."""

import lightning as L
import pytest
import torch

from smm_lightning.classifier import ReprogrammedClassifier
from smm_lightning.errors import UserError
from smm_lightning.method import NoPrompt
from smm_lightning.run.identity import run_key, run_name
from smm_lightning.train import train
from tests.assembled import assemble
from tests.test_habits import SMALL

COUNTED = ("ilm", "flm", "rlm", "blm", "blm_plus")


def test_the_bare_image():
    method = NoPrompt(8, (0.5,) * 3, (0.25,) * 3)
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(method(images), (images - 0.5) / 0.25)
    assert torch.equal(method(images), method.bare(images))
    assert method.parameter_groups() == {}
    assert not method.mask(images).any()
    assert not method.augmented
    assert NoPrompt(8, (0.5,) * 3, (0.25,) * 3, augmented=True).augmented


@pytest.mark.parametrize("mapping", COUNTED)
def test_nothing_trained_is_the_classifier_with_its_counted_mapping(composed, mapping):
    words = ("method=none", f"mapping={mapping}", "epochs=7", "trainer.check_val_every_n_epoch=3")
    result = train(composed(*SMALL, *words))
    assert result["params/trainable"] == 0
    assert [row["epoch"] for row in result["history"]] == [0]
    data, module = assemble(composed(*SMALL, *words))
    classifier = module.classifier
    classifier.refit(data.mapping_batches(torch.device("cpu")))
    right = asked = 0
    for batch in data.test_dataloader():
        batch = data.on_after_batch_transfer(batch, 0)  # noqa: PLW2901
        right += (classifier(batch["image"]).argmax(1) == batch["target"]).sum().item()
        asked += len(batch["target"])
    assert asked == 40
    assert result["test/acc_last"] == pytest.approx(right / asked)
    assert result["test/acc_best_val"] is None  # of one epoch there is no best


def test_it_is_saved_and_read_again(composed):
    cfg = composed(*SMALL, "method=none", "mapping=blm")
    train(cfg)
    model = ReprogrammedClassifier.from_pretrained(cfg.paths.run)
    images = torch.rand(2, 3, 32, 32)
    expected = model.backbone(
        (images - model.input_transform.mean.view(3, 1, 1))
        / model.input_transform.variance.sqrt().view(3, 1, 1)
    )
    expected = expected @ model.label_mapping.weight / model.temperature.float()
    torch.testing.assert_close(model(images), expected)


def test_settings_of_what_is_not_there_are_in_no_key(composed):
    bare = composed("method=none")
    for word in (
        "optimizer.groups.pattern.lr=0.5",
        "optimizer.groups.mask_generator.lr=0.5",
        "mask_generator_layers=6",
        "epochs=9",  # nothing is trained
        "optimizer=sgd",
        "scheduler=cosine",
        "+optimizer.groups.adapter={_target_: smm_lightning.training.Group, lr: 0.1}",
    ):
        assert run_key(composed("method=none", word)) == run_key(bare), word
    trained = run_key(composed("method=none", "mapping=fc"))
    assert run_key(composed("method=none", "mapping=fc", "epochs=9")) != trained
    assert run_key(composed("method=none", "adapter=full")) != run_key(
        composed("method=none", "adapter=full", "optimizer.groups.adapter.lr=0.3")
    )
    rates = (f"optimizer.groups.adapter.lr={lr}" for lr in (0.01, 0.02))
    assert len({run_key(composed("experiment=table13", rate)) for rate in rates}) == 1
    assert run_key(composed("method=none", "method.augmented=true")) != run_key(bare)
    assert run_key(composed("adapter=full")) != run_key(composed())
    assert "-ilm-s0-" in run_name(bare)
    assert "-ilm-full-s0-" in run_name(composed("adapter=full"))


def test_a_group_without_settings_is_named(composed):
    cfg = composed(*SMALL, "method=none", "mapping=fc", "~optimizer.groups.mapping")
    with pytest.raises(UserError, match=r"optimizer.groups: has no settings of .got 'mapping'"):
        train(cfg)


def test_a_trainer_of_ones_own_is_left_as_it_was(composed):
    data, module = assemble(composed(*SMALL, "method=none"))
    trainer = L.Trainer(
        max_epochs=3,
        check_val_every_n_epoch=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(module, datamodule=data)
    assert trainer.current_epoch == 1
    assert (trainer.max_epochs, trainer.check_val_every_n_epoch) == (3, 2)


def test_nothing_goes_on_where_nothing_is_trained(composed):
    cfg = composed(*SMALL, "method=none")
    train(cfg)
    rest = composed(*SMALL, "method=none", f"ckpt_path={cfg.paths.run}/last.ckpt")
    rest.paths.run = f"{cfg.paths.run}-rest"
    with pytest.raises(UserError, match="ckpt_path: nothing is trained here"):
        train(rest)
