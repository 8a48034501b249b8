"""Every YAML file composes and builds; a new file is tested without touching this one."""

import importlib
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from smm_lightning import cli
from smm_lightning.assembly import assemble, build
from smm_lightning.backbone import BackboneSpec
from smm_lightning.dataset import ImageDataModule
from smm_lightning.mapping import LabelMapping
from smm_lightning.method import InputTransform

CONF = Path(__file__).parent.parent / "conf"
GROUPS = ("dataset", "method", "backbone", "mapping")


def choices(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def everything():
    groups = [p.name for p in CONF.iterdir() if p.is_dir() and p.name != "hydra"]
    return [(group, choice) for group in groups for choice in choices(group)]


@pytest.mark.parametrize(("group", "choice"), everything())
def test_composes_and_resolves(composed, group, choice):
    cfg = composed(f"{group}={choice}")
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("group", GROUPS)
def test_targets_lie_in_the_package_of_the_group(composed, group):
    for choice in choices(group):
        cfg = composed(f"{group}={choice}")
        assert cfg[group]._target_.startswith(f"smm_lightning.{group}."), choice


@pytest.mark.parametrize("choice", choices("method"))
def test_method_builds(composed, choice):
    cfg = composed(f"method={choice}")
    method = build(cfg, "method", image_size=128, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert isinstance(method, InputTransform)
    assert cfg.method.name == choice.partition("_patch")[0]  # figure 4: smm with another patch size
    images = torch.rand(2, 3, method.input_size, method.input_size)
    assert method(images).shape == method.mask(images).shape == (2, 3, 128, 128)


def frame(width):
    """Trained values of a frame of ``width`` pixels at 128, of three channels."""
    return 3 * (128**2 - (128 - 2 * width) ** 2)


# What each method of the paper consists of: class, values of the pattern that count, poolings,
# channels of the mask, parameters of the mask generator (Tables 3, 4 and 11; section 5).
BUILT = {
    "pad": ("PadPrompt", 3 * (128**2 - 64**2), None, None, 0),
    "narrow": ("FramePrompt", frame(16), None, None, 0),
    "medium": ("FramePrompt", frame(32), None, None, 0),
    "full": ("FramePrompt", 3 * 128**2, None, None, 0),
    "smm": ("SampleSpecificMask", 3 * 128**2, 3, 3, 26_499),
    "smm_patch1": ("SampleSpecificMask", 3 * 128**2, 0, 3, 26_499),
    "smm_patch2": ("SampleSpecificMask", 3 * 128**2, 1, 3, 26_499),
    "smm_patch4": ("SampleSpecificMask", 3 * 128**2, 2, 3, 26_499),
    "smm_patch16": ("SampleSpecificMask", 3 * 128**2, 4, 3, 26_499),
    "only_mask": ("SampleSpecificMask", 0, 3, 3, 26_499),
    "smm_single_channel": ("SampleSpecificMask", 3 * 128**2, 3, 1, 26_499 - 1_731),
}


@pytest.mark.parametrize("choice", choices("method"))
def test_method_is_what_the_paper_says(composed, choice):
    """A new method gets its row here: what is trained is counted from the built parts."""
    kind, pattern, poolings, channels, generator = BUILT[choice]
    method = build(
        composed(f"method={choice}"), "method", image_size=128, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    images = torch.rand(2, 3, method.input_size, method.input_size)
    assert type(method).__name__ == kind
    assert (method.pattern is not None) == (pattern > 0)
    if kind == "SampleSpecificMask":
        blocks = method.mask_generator.blocks
        assert [block.pooled for block in blocks] == [n < poolings for n in range(4)]
        assert [block[0].out_channels for block in blocks] == [8, 16, 32, 64]
        side = 128 // 2**poolings
        inputs = method.normalize(images)
        assert method.mask_generator(inputs).shape == (2, channels, side, side)
        assert method.upsample.__name__ == "patchwise"
    else:
        assert method.mask(images)[0].sum() == pattern
    found = method.parameter_groups().get("mask_generator", [])
    assert sum(weight.numel() for weight in found) == generator


@pytest.mark.parametrize("choice", choices("mapping"))
def test_mapping_builds(composed, choice):
    cfg = composed(f"mapping={choice}")
    mapping = build(cfg, "mapping", source_classes=20, classes=10)
    assert isinstance(mapping, LabelMapping)
    assert cfg.mapping.name == choice


@pytest.mark.parametrize("choice", choices("backbone"))
def test_backbone_builds(composed, choice):
    cfg = composed(
        f"backbone={choice}", "backbone.pretrained=false" if choice != "tiny" else "seed=0"
    )
    spec = build(cfg, "backbone", name=cfg.backbone.name)
    assert isinstance(spec, BackboneSpec)
    if choice != "vit_b32":  # half a gigabyte; built in tests/backbone
        backbone = spec.build()
        images = torch.randn(1, 3, spec.image_size, spec.image_size)
        assert backbone(images).shape == (1, spec.source_classes)
        assert len(backbone.class_names) == spec.source_classes


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Mean, standard deviation and side of the input. SMM feeds its ViT ImageNet's constants.
SEEN = {
    "resnet18": (*IMAGENET, 224),
    "resnet50": (*IMAGENET, 224),
    "vit_b32": (*IMAGENET, 384),
    "efficientnet_lite0": (*HALF, 128),
    "timm": (*IMAGENET, 224),
    "tiny": (*IMAGENET, 32),
}


@pytest.mark.parametrize("choice", choices("backbone"))
def test_backbone_sees_images_as_in_its_training(composed, choice):
    """A new backbone gets its row here; the numbers are those of its origin, not of this code."""
    cfg = composed(f"backbone={choice}")
    spec = build(cfg, "backbone", name=cfg.backbone.name)
    assert (spec.mean, spec.std, spec.image_size) == SEEN[choice]
    method = build(cfg, "method", image_size=32, mean=spec.mean, std=spec.std)
    grey = torch.full((1, 3, 32, 32), 0.6)
    expected = [(0.6 - mean) / std for mean, std in zip(*SEEN[choice][:2], strict=True)]
    assert method.normalize(grey)[0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("choice", choices("dataset"))
def test_dataset_builds(composed, choice):
    cfg = composed(f"dataset={choice}")
    for field in {"root", "path"} & cfg.dataset.source.keys():
        cfg.dataset.source[field] = "somewhere"
    assert isinstance(build(cfg, "dataset", size=32), ImageDataModule)


def test_every_dataset_of_the_catalog_has_its_file(composed):
    from smm_lightning.catalog import CATALOG

    assert CATALOG.keys() | {"digits", "imagefolder", "hub", "cifar10_subset"} == set(
        choices("dataset")
    )
    for name, facts in CATALOG.items():
        cfg = composed(f"dataset={name}", "method=pad").dataset
        chosen = (cfg.name, cfg.batch_size, cfg.native_size, cfg.augmentation)
        assert chosen == (name, facts.batch_size, facts.native_size, "paper")


def test_the_catalog_is_table_6():
    """Against the table as it is printed: name, native size, train, test, classes, batch size."""
    from smm_lightning.catalog import CATALOG

    printed = """
        cifar10 32 50000 10000 10 256    cifar100 32 50000 10000 100 256
        svhn 32 73257 26032 10 256       gtsrb 32 39209 12630 43 256
        flowers102 128 4093 2463 102 256 dtd 128 2820 1692 47 64
        ucf101 128 7639 3783 101 256     food101 128 50500 30300 101 256
        sun397 128 15888 19850 397 256   eurosat 128 13500 8100 10 256
        oxfordpets 128 2944 3669 37 64   stanfordcars 128 6509 8041 196 256
    """
    rows = [
        (name, *map(int, numbers))
        for name, *numbers in zip(*[iter(printed.split())] * 6, strict=True)
    ]
    facts = CATALOG.values()
    ours = [(f.name, f.native_size, f.train, f.test, f.classes, f.batch_size) for f in facts]
    assert ours == rows


def test_the_papers_protocol(composed):
    cfg = composed("experiment=paper", "dataset=dtd")
    assert (cfg.epochs, cfg.optimizer.milestones, cfg.backbone.name) == (
        200,
        "paper",
        "resnet18",
    )
    assert (cfg.dataset.batch_size, cfg.dataset.use_val, cfg.dataset.val_fraction) == (64, False, 0)
    assert cfg.dataset.train_images is None
    assert cfg.dataset.shots is None


@pytest.mark.parametrize("choice", choices("callbacks"))
def test_callbacks_build(composed, choice):
    cfg = composed(f"callbacks={choice}")
    for node in cfg.callbacks.values():
        instantiate(node)


def test_paper_settings_of_the_backbones(composed):
    resnet, vit = composed("backbone=resnet50"), composed("backbone=vit_b32")
    assert resnet.backbone.weights_name == "IMAGENET1K_V2"
    assert composed("backbone=resnet18").backbone.weights_name == "IMAGENET1K_V1"
    assert (resnet.method.layers, resnet.optimizer.mask_generator.lr) == (5, 0.01)
    assert (vit.method.layers, vit.optimizer.mask_generator.lr) == (6, 0.001)
    assert (vit.optimizer.mask_generator.decay, vit.optimizer.pattern.decay) == (1.0, 0.1)
    assert vit.backbone.image_size == 384


def test_run_name_follows_what_decides_about_the_result(composed):
    cfg = composed()
    name = cli.run_name(cfg)
    assert name.startswith("digits-smm-efficientnet_lite0-ilm-s0-")
    for same in (
        *("trainer=cpu", "logger=csv", "dataset.num_workers=2", "force=true", "threads=1"),
        *("compiled=true", "fused_attention=false", "backbone.folded=false"),
        *("backbone.channels_last=false", "backbone.fast_stem=false"),
        *("dataset.evaluation_batch_size=7", "trainer.devices=2"),
    ):
        assert cli.run_name(composed(same)) == name, same
    for other in (
        "seed=1",
        "method=full",
        "epochs=3",
        "optimizer.pattern.lr=0.1",
        "mapping=flm",
        "ckpt_path=x",
        "trainer.precision=64-true",
        "optimizer.mask_generator.lr=0.1",
        "+something.new=1",
        "+trainer.gradient_clip_val=1",
    ):
        assert cli.run_name(composed(other)) != name, other
    assert cfg.paths.run.endswith(name)


def test_rates_of_what_a_method_has_not_are_no_part_of_its_key(composed):
    def same(method, *overrides):
        return cli.run_name(composed(method, *overrides)) == cli.run_name(composed(method))

    for method in ("pad", "narrow", "medium", "full"):
        assert same(f"method={method}", "optimizer.mask_generator.lr=0.1")
        assert not same(f"method={method}", "optimizer.pattern.lr=0.1")
    assert same("method=only_mask", "optimizer.pattern.lr=0.1")
    assert not same("method=only_mask", "optimizer.mask_generator.decay=0.5")


def test_variables_that_change_the_trainer_unseen_are_refused(composed, monkeypatch):
    from smm_lightning.errors import UserError

    monkeypatch.setenv("PL_TRAINER_MAX_EPOCHS", "3")
    with pytest.raises(UserError, match=r"PL_TRAINER_MAX_EPOCHS: changes the trainer unseen .got"):
        assemble(composed("backbone=tiny"))


def callback(target, name="more"):
    return f"+callbacks.{name}._target_={target}"


LIGHTNINGS = "lightning.pytorch.callbacks"


@pytest.mark.parametrize(
    "override",
    [
        "callbacks=none",
        "callbacks.last.every_n_steps=3",
        callback("smm_lightning.callbacks.Panels"),
        callback(f"{LIGHTNINGS}.LearningRateMonitor"),
        callback(f"{LIGHTNINGS}.model_summary.ModelSummary"),
    ],
)
def test_callbacks_that_watch_are_no_part_of_the_run_key(composed, override):
    assert cli.run_name(composed(override)) == cli.run_name(composed())


@pytest.mark.parametrize(
    "target",
    [
        *(f"{LIGHTNINGS}.{name}" for name in ("EarlyStopping", "Timer", "WeightAveraging")),
        f"{LIGHTNINGS}.StochasticWeightAveraging",
        "my_package.MyCallback",
        "elsewhere.LastCheckpoint",
    ],
)
def test_callbacks_that_may_act_on_training_are_part_of_the_run_key(composed, target):
    found = composed(callback(target))
    assert cli.run_name(found) != cli.run_name(composed())
    other_setting = composed(callback(target), "+callbacks.more.patience=3")
    assert cli.run_name(other_setting) != cli.run_name(found)


def test_every_callback_that_is_said_to_watch_exists():
    from smm_lightning.identity import _WATCHING

    for package, names in _WATCHING.items():
        for name in names:
            assert hasattr(importlib.import_module(package.rstrip(".")), name), name


def test_all_problems_of_a_configuration_are_found_together(composed):
    from smm_lightning.errors import UserError

    cfg = composed(
        "backbone=tiny",
        "method.patch_size=7",
        "dataset.batch_size=0",
        "optimizer.pattern.lr=-1",
        "optimizer.milestones=papr",
        "seed=-3",
        "trainer.precision=16-mixed",
        "trainer.accelerator=cpu",
        "+trainer.overfit_batches=2",
    )
    with pytest.raises(UserError) as error:
        assemble(cfg)
    assert sorted(line.split(":")[0] for line in error.value.problems) == [
        "dataset.batch_size",
        "method.patch_size",
        "optimizer.milestones",
        "optimizer.pattern.lr",
        "seed",
        "trainer.overfit_batches",
        "trainer.precision",
    ]


def test_unknown_speed_settings_are_refused(composed):
    from smm_lightning.errors import UserError

    cfg = composed("backbone=tiny", "compiled=perhaps", "trainer.precision=bf16-mixd")
    cfg.fused_attention = 2
    with pytest.raises(UserError) as error:
        assemble(cfg)
    assert sorted(error.value.problems) == [
        "compiled: must be true, false or null (got 'perhaps').",
        "fused_attention: must be true, false or null (got 2).",
        "trainer.precision: unknown (got 'bf16-mixd'). Did you mean 'bf16-mixed'? Known: "
        "16-mixed, 16-true, 32-true, 64-true, auto, bf16-mixed, bf16-true.",
    ]


def test_more_classes_than_the_backbone_has_are_refused(composed):
    from smm_lightning.errors import UserError

    with pytest.raises(UserError, match=r"10 target classes cannot each have one of 9"):
        assemble(composed("backbone=tiny", "backbone.classes=9"))
