import math
from pathlib import Path

import lightning as L
import pytest
import torch

from smm_lightning import train as entry
from smm_lightning.backbone.backbone import fingerprint
from smm_lightning.errors import UserError
from smm_lightning.mapping import greedy_one_to_one
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.training import EpochRecorder
from smm_lightning.training.checkpoint_io import AtomicCheckpointIO
from smm_lightning.training.history import clock, epoch_line
from smm_lightning.training.module import ReprogrammingModule
from tests.assembled import assemble, trainer_of

SMALL = ("backbone=tiny", "trainer=cpu", "epochs=2", "dataset.train_images=200")


@pytest.mark.parametrize("method", ["smm", "pad"])
def test_training_leaves_the_frozen_network_bit_identical(composed, method):
    cfg = composed(*SMALL, f"method={method}", "dataset.native_size=16")
    parts = assemble(cfg)
    network = parts.module.classifier.backbone.body
    before = fingerprint(network)
    pattern = parts.module.classifier.input_transform.pattern.detach().clone()
    seen = []

    class Watch(L.Callback):
        def on_train_batch_end(self, *_):
            seen.append(any(module.training for module in network.modules()))

    trainer = trainer_of(cfg, [EpochRecorder(None)])
    trainer.callbacks.append(Watch())
    trainer.fit(parts.module, datamodule=parts.data)
    assert len(seen) == 14
    assert not any(seen)
    assert fingerprint(network) == before
    assert not torch.equal(parts.module.classifier.input_transform.pattern, pattern)


def test_checkpoint_holds_the_prompt_and_nothing_of_the_backbone(composed):
    cfg = composed(*SMALL)
    entry.train(cfg)
    checkpoint = read_checkpoint(Path(cfg.paths.run) / "last.ckpt")
    prefixes = {name.split(".")[0] for name in checkpoint["state_dict"]}
    assert prefixes <= {"classifier"}
    assert checkpoint["identity"]["backbone"] == "tiny"


def test_a_224_checkpoint_is_small(composed, tmp_path):
    cfg = composed(*SMALL, "backbone.image_size=224", "dataset.train_images=40", "epochs=1")
    entry.train(cfg)
    size = (Path(cfg.paths.run) / "last.ckpt").stat().st_size
    assert size <= 2.5e6  # the pattern's 3 x 224 x 224 floats three times over: it and Adam's two


def test_a_loss_that_is_not_finite_stops_before_the_step(composed):
    parts = assemble(composed(*SMALL))
    cfg = composed(*SMALL)

    class Poison(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if batch_idx == 3:
                self.before = module.classifier.input_transform.pattern.detach().clone()
                batch["image"].fill_(float("nan"))

    poison = Poison()
    trainer = trainer_of(cfg, [EpochRecorder(None)])
    trainer.callbacks.append(poison)
    message = (
        r"training: the loss is not finite in epoch 0, step 3, .*'pattern': 0.01.* Lower optimizer"
    )
    with pytest.raises(UserError, match=message):
        trainer.fit(parts.module, datamodule=parts.data)
    assert torch.equal(parts.module.classifier.input_transform.pattern, poison.before)


def test_a_checkpoint_of_another_run_is_refused_with_every_difference(composed):
    cfg = composed(*SMALL)
    entry.train(cfg)
    path = Path(cfg.paths.run) / "last.ckpt"
    other = composed(
        *SMALL, "method=full", "seed=1", "backbone.seed=5", "epochs=3", f"ckpt_path='{path}'"
    )
    with pytest.raises(UserError) as error:
        entry.train(other)
    text = "\n".join(error.value.problems)
    assert len(error.value.problems) == 3
    for key in ("method", "seed", "backbone_sha256"):
        assert f"ckpt_path: the checkpoint has another {key} than this run's" in text


def test_damaged_and_hostile_checkpoints_are_refused(composed, tmp_path):
    good = tmp_path / "good.ckpt"
    content = {"identity": {"schema": 7}, "parts": {}, "state_dict": {"x": torch.arange(1000)}}
    AtomicCheckpointIO().save_checkpoint(content, good)
    assert read_checkpoint(good)["state_dict"]["x"].sum() == 499_500
    content = good.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)

    class Hostile:
        def __reduce__(self):
            return print, ("this must not run",)

    hostile = tmp_path / "hostile.ckpt"
    torch.save({"identity": Hostile()}, hostile)
    for name, bytes_ in {
        "truncated": content[:-200],
        "empty": b"",
        "page": b"<html>",
        "flipped": flipped,
        "hostile": hostile.read_bytes(),
    }.items():
        file = tmp_path / f"{name}.ckpt"
        file.write_bytes(bytes_)
        with pytest.raises(UserError, match=r"is damaged or no checkpoint of this program"):
            read_checkpoint(file)
    with pytest.raises(UserError, match=r"is no checkpoint of this program"):
        read_checkpoint(foreign)
    with pytest.raises(UserError, match=r"ckpt_path: no such file"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"identity": 1}, path)
    before = path.read_bytes()

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match=r"No space left"):
        AtomicCheckpointIO().save_checkpoint({"identity": 2}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_forward_is_the_composition(composed):
    parts = assemble(composed(*SMALL, "mapping=rlm", "recipe=paper"))
    module: ReprogrammingModule = parts.module.eval()
    images = torch.rand(3, 3, 32, 32)
    source = module.classifier.backbone(module.classifier.input_transform(images))
    assert torch.equal(module(images), source[:, module.classifier.label_mapping.index])


def test_epoch_line():
    row = {
        "epoch": 2,
        "train/loss": 0.41234,
        "train/acc": 0.881,
        "test/acc": 0.9,
        "time/epoch_s": 4,
    }
    line = epoch_line([row], 10)
    assert line == "epoch  3/10  loss 0.412  train 88.1 %  test 90.0 %  4.0 s  0:28 left"
    assert clock(3725) == "1:02:05"


@pytest.mark.parametrize("mapping", ["ilm", "flm", "rlm"])
def test_a_temperature_is_fitted_before_the_first_step(composed, mapping):
    """It is the best one for the first answers, so the loss begins below that of chance."""
    cfg = composed(
        *SMALL, f"mapping={mapping}", "mapping.temperature=auto", "trainer.precision=32-true"
    )
    result = entry.train(cfg)
    stored = read_checkpoint(Path(cfg.paths.run) / "last.ckpt")["state_dict"]
    parts = assemble(cfg)
    model = parts.module.classifier
    counted = list(parts.data.mapping_batches(torch.device("cpu")))
    model.refit(counted)
    assert stored["classifier.temperature"].item() == pytest.approx(model.temperature.item())
    assert result["temperature"] == stored["classifier.temperature"].item()
    images = torch.cat([batch["image"] for batch in counted])
    targets = torch.cat([batch["target"] for batch in counted])
    with torch.no_grad():
        first = torch.nn.functional.cross_entropy(model.eval()(images), targets)
    assert first < math.log(10)


def test_a_mapping_refitted_until_the_first_epoch_is_the_frequent_one(composed):
    options = (*SMALL, "recipe=paper", "epochs=3")
    frequent = entry.train(composed(*options, "mapping=flm"))
    held = entry.train(composed(*options, "mapping.refit_until=1"))
    running = ("mapping.refresh=running", "mapping.refit_until=1")
    also = entry.train(composed(*options, *running))
    for name in ("mapping", "train/loss_last", "test/loss_last"):
        assert held[name] == frequent[name] == also[name]
    later = entry.train(composed(*options, "mapping.refit_until=2"))
    changed = [row["mapping/changed"] for row in later["history"]]
    assert changed[0] > 0
    assert changed[2] == 0


@pytest.mark.parametrize("mapping", ["ilm", "flm"])
def test_the_counting_pass_sees_the_epochs_own_images(composed, mapping):
    """Each training image once, with the crop and flip of the epoch that it is counted for."""
    options = (f"mapping={mapping}", "callbacks=none", "epochs=3", "dataset.augmentation=paper")
    options += ("recipe=paper",)
    cfg = composed(*SMALL, *options, "dataset.batch_size=30")
    parts = assemble(cfg)
    counted, trained = [], []
    batches = parts.data.mapping_batches

    def watched(device):
        counted.append({})
        for batch in batches(device):
            counted[-1].update(zip(batch["index"].tolist(), batch["image"], strict=True))
            yield batch

    parts.data.mapping_batches = watched

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 0:
                trained.append({})
            trained[-1].update(zip(batch["index"].tolist(), batch["image"].clone(), strict=True))

    trainer_of(cfg, [Watch()]).fit(parts.module, datamodule=parts.data)
    assert len(counted) == (3 if mapping == "ilm" else 1)
    for own, seen in zip(counted, trained, strict=False):
        assert own.keys() == seen.keys()
        assert len(own) == 200
        assert all(torch.equal(image, seen[index]) for index, image in own.items())
    assert any(not torch.equal(image, trained[1][i]) for i, image in trained[0].items())


def test_flm_stays_where_ilm_moves(composed):
    def mappings(mapping):
        options = (
            f"mapping={mapping}",
            "recipe=paper",
            "callbacks=none",
            "epochs=4",
            "optimizer.groups.pattern.lr=0.2",
        )
        cfg = composed(*SMALL, *options)
        parts, found = assemble(cfg), []

        class Watch(L.Callback):
            def on_train_epoch_end(self, trainer, module):
                found.append(tuple(module.classifier.label_mapping.index.tolist()))

        trainer_of(cfg, [Watch()]).fit(parts.module, datamodule=parts.data)
        return found

    ilm, flm = mappings("ilm"), mappings("flm")
    assert len(set(ilm)) > 1
    assert len(set(flm)) == 1
    assert flm[0] == ilm[0]


def test_running_counts_are_the_predictions_of_the_steps(composed):
    """The second epoch's mapping comes from what the first epoch's steps predicted, not a pass."""
    options = ("mapping.refresh=running", "callbacks=none", "trainer.precision=32-true")
    options += ("recipe=paper",)
    cfg = composed(*SMALL, *options, "dataset.batch_size=30")
    parts = assemble(cfg)
    module = parts.module
    passes, seen, mappings = [], torch.zeros(20, 10, dtype=torch.int64), []
    refit = module.classifier.refit_unchecked

    def watched(batches, over_ranks):
        passes.append(module.current_epoch)
        return refit(batches, over_ranks)

    module.classifier.refit_unchecked = watched

    class Watch(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 0:
                mappings.append(module.classifier.label_mapping.index.clone())
            if trainer.current_epoch == 0:
                with torch.no_grad():
                    state = {
                        k: v.clone()
                        for k, v in module.classifier.input_transform.state_dict().items()
                    }
                    predicted = module.classifier.source(batch["image"]).argmax(1)
                    module.classifier.input_transform.load_state_dict(state)
                for source, target in zip(predicted, batch["target"], strict=True):
                    seen[source, target] += 1

    trainer_of(cfg, [Watch()]).fit(module, datamodule=parts.data)
    assert passes == [0]
    assert seen.sum() == 200
    assert torch.equal(mappings[1], greedy_one_to_one(seen))


def test_a_checkpoint_in_mid_epoch_keeps_the_running_counts(composed, tmp_path):
    options = (*SMALL, "mapping.refresh=running", "callbacks=none", "dataset.batch_size=30")
    cfg = composed(*options)
    first, second = assemble(cfg).module, assemble(cfg).module
    counts = torch.randint(2**40, (20, 10))
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    for module in (first, second):
        module._trainer = trainer
    first.classifier.label_mapping.statistics = counts
    checkpoint = {"state_dict": first.state_dict()}
    first.on_save_checkpoint(checkpoint)
    path = tmp_path / "x.ckpt"
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    second.on_load_checkpoint(read_checkpoint(path))
    assert torch.equal(second.classifier.label_mapping.statistics, counts)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_gradients_are_clipped(composed, precision):
    """In bfloat16, too, where Lightning refuses to clip in front of a fused optimiser."""
    cfg = composed(
        *SMALL,
        *("epochs=1", "callbacks=none", "optimizer=sgd", "optimizer.groups.pattern.lr=1"),
        *("method=full", "trainer.gradient_clip_val=1e-3", f"trainer.precision={precision}"),
    )
    parts = assemble(cfg)
    pattern, steps = parts.module.classifier.input_transform.pattern, []

    class Watch(L.Callback):
        def on_train_batch_start(self, *_):
            steps.append(pattern.detach().clone())

    trainer_of(cfg, [Watch()]).fit(parts.module, datamodule=parts.data)
    first = (steps[1] - steps[0]).norm()  # without momentum yet: rate 1 times the gradient
    assert first == pytest.approx(1e-3, rel=1e-2)
    adam = assemble(composed(*SMALL, "epochs=1", "callbacks=none"))
    for clip, fused in ((None, True), (1e-3, False)):
        cfg = composed(
            *SMALL, f"trainer.gradient_clip_val={clip or 'null'}", f"trainer.precision={precision}"
        )
        adam.module._trainer = trainer_of(cfg)
        built = adam.module.configure_optimizers()["optimizer"]
        assert any(group["fused"] for group in built.param_groups) is fused
