"""Every YAML file composes and builds; a new file is tested without touching this one."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from smm_lightning.backbone import BackboneSpec
from smm_lightning.dataset import ImageDataModule
from smm_lightning.errors import UserError
from smm_lightning.mapping import LabelMapping
from smm_lightning.method import InputTransform
from smm_lightning.run.identity import run_key
from smm_lightning.run.prepare import known_datasets, node_of
from smm_lightning.training.assembly import build, plan
from tests.assembled import assemble, trainer_of

CONF = Path(__file__).parent.parent / "conf"
GROUPS = ("dataset", "method", "backbone", "mapping")


def choices(group, below=""):
    return sorted(below + path.stem for path in (CONF / group / below).glob("*.yaml"))


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
    method = build(cfg.method, "method", image_size=128, mean=(0.5,) * 3, std=(0.5,) * 3)
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
    "none": ("NoPrompt", 0, None, None, 0),
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
    node = composed(f"method={choice}").method
    method = build(node, "method", image_size=128, mean=(0.5,) * 3, std=(0.5,) * 3)
    images = torch.rand(2, 3, method.input_size, method.input_size)
    assert type(method).__name__ == kind
    assert (getattr(method, "pattern", None) is not None) == (pattern > 0)
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
    mapping = build(cfg.mapping, "mapping", inputs=20, classes=10)
    assert isinstance(mapping, LabelMapping)
    assert cfg.mapping.name == choice


@pytest.mark.parametrize("choice", choices("backbone"))
def test_backbone_builds(composed, choice):
    cfg = composed(
        f"backbone={choice}", "backbone.pretrained=false" if choice != "tiny" else "seed=0"
    )
    spec = build(cfg.backbone, "backbone")
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
    "efficientnet_lite1": (*HALF, 128),
    "efficientnet_lite2": (*HALF, 128),
    "timm": (*IMAGENET, 224),
    "tiny": (*IMAGENET, 32),
}


@pytest.mark.parametrize("choice", choices("backbone"))
def test_backbone_sees_images_as_in_its_training(composed, choice):
    """A new backbone gets its row here; the numbers are those of its origin, not of this code."""
    cfg = composed(f"backbone={choice}")
    spec = build(cfg.backbone, "backbone")
    assert (spec.mean, spec.std, spec.image_size) == SEEN[choice]
    method = build(cfg.method, "method", image_size=32, mean=spec.mean, std=spec.std)
    grey = torch.full((1, 3, 32, 32), 0.6)
    expected = [(0.6 - mean) / std for mean, std in zip(*SEEN[choice][:2], strict=True)]
    assert method.normalize(grey)[0, :, 0, 0].tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("choice", choices("dataset"))
def test_dataset_builds(composed, choice):
    cfg = composed(f"dataset={choice}")
    for field in {"root", "path"} & cfg.dataset.source.keys():
        cfg.dataset.source[field] = "somewhere"
    assert isinstance(build(cfg.dataset, "dataset", size=32), ImageDataModule)


def test_the_datasets_of_the_paper_are_table_6():
    """Against the table as it is printed: name, native size, train, test, classes, batch size."""
    printed = """
        cifar10 32 50000 10000 10 256    cifar100 32 50000 10000 100 256
        svhn 32 73257 26032 10 256       gtsrb 32 39209 12630 43 256
        flowers102 128 4093 2463 102 256 dtd 128 2820 1692 47 64
        ucf101 128 7639 3783 101 256     food101 128 50500 30300 101 256
        sun397 128 15888 19850 397 256   eurosat 128 13500 8100 10 256
        oxfordpets 128 2944 3669 37 64   stanfordcars 128 6509 8041 196 256
    """
    rows = {
        name: tuple(map(int, numbers))
        for name, *numbers in zip(*[iter(printed.split())] * 6, strict=True)
    }
    ours = {}
    for name, file in known_datasets().items():
        node = node_of(file, "data")
        facts = [node["facts"][key] for key in ("train", "test", "classes")]
        ours[node["name"]] = (node["native_size"], *facts, node["batch_size"])
        assert (name, node["augmentation"]) == (node["name"], "paper")
    assert ours == rows


def test_the_papers_protocol(composed):
    cfg = composed("experiment=paper", "dataset=dtd")
    assert (cfg.epochs, cfg.scheduler.milestones, cfg.backbone.name) == (
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
    resnet, vit = (composed(f"backbone={b}", "recipe=paper") for b in ("resnet50", "vit_b32"))
    assert resnet.backbone.weights_name == "IMAGENET1K_V2"
    assert composed("backbone=resnet18").backbone.weights_name == "IMAGENET1K_V1"
    assert (resnet.method.layers, resnet.optimizer.groups.mask_generator.lr) == (5, 0.01)
    assert (vit.method.layers, vit.optimizer.groups.mask_generator.lr) == (6, 0.001)
    assert (
        vit.optimizer.groups.mask_generator.lr_decay,
        vit.optimizer.groups.pattern.lr_decay,
    ) == (1.0, 0.1)
    assert vit.backbone.image_size == 384


def test_all_problems_of_values_are_found_together(composed):
    cfg = composed(
        "backbone=tiny",
        "backbone.image_size=4",
        "method.patch_size=7",
        "method.channels=2",
        "method.interpolation=bilinea",
        "mapping.refresh=epochs",
        "dataset.batch_size=0",
        "dataset.evaluation_batch_size=0",
        "dataset.num_workers=-1",
        "dataset.val_fraction=1.0",
        "dataset.augmentation=papr",
        "dataset.residency=moon",
        "dataset.train_images=-1",
        "dataset.shots=0",
        "optimizer.groups.pattern.lr=-1",
        "scheduler.milestones=papr",
        "loss.label_smoothing=1",
        "trainer.precision=bf16-mixd",
        "compiled=perhaps",
        "fused_attention=2",
        "seed=-3",
    )
    with pytest.raises(UserError) as error:
        plan(cfg)
    assert sorted(error.value.problems) == [
        "backbone.image_size: must be at least 8 (got 4).",
        "compiled: must be a valid boolean or null (got 'perhaps').",
        "dataset.augmentation: must be 'paper', 'no_flip' or 'none' (got 'papr'). "
        "Did you mean 'paper'?",
        "dataset.batch_size: must be at least 1 (got 0).",
        "dataset.evaluation_batch_size: must be at least 1 or null (got 0).",
        "dataset.num_workers: must be at least 0 or null (got -1).",
        "dataset.residency: must be 'auto', 'device', 'memory' or 'disk' (got 'moon').",
        "dataset.shots: must be at least 1 or null (got 0).",
        "dataset.train_images: must be above 0 or null (got -1).",
        "dataset.val_fraction: must be below 1 (got 1.0).",
        "fused_attention: must be a valid boolean or null (got 2).",
        "loss.label_smoothing: must be below 1 (got 1).",
        "mapping.refresh: must be 'once', 'epoch' or 'running' (got 'epochs'). "
        "Did you mean 'epoch'?",
        "method.channels: must be 1 or 3 (got 2).",
        "method.interpolation: must be 'patchwise', 'bilinear' or 'bicubic' (got 'bilinea'). "
        "Did you mean 'bilinear'?",
        "method.patch_size: must be a power of two (got 7).",
        "optimizer.groups.pattern.lr: must be above 0 (got -1).",
        "scheduler.milestones: must be 'paper', 'published' or 'short' or a valid list "
        "(got 'papr'). Did you mean 'paper'?",
        "seed: must be at least 0 (got -3).",
        "trainer.precision: must be 'auto', 'published', '32-true', 'bf16-mixed', '16-mixed', "
        "'bf16-true', '16-true' or '64-true' or '16', 'bf16', '32', '64', 16, 32 or 64 "
        "(got 'bf16-mixd'). "
        "Did you mean 'bf16-mixed'?",
    ]


def test_what_does_not_fit_together_is_found_together(composed):
    cfg = composed(
        "backbone=tiny",
        "+backbone.weights=nowhere.pt",
        "method.patch_size=16",
        "method.layers=3",
        "dataset.shots=3",
        "dataset.train_images=9",
        "scheduler.milestones=[3,2]",
        "ckpt_path=nowhere.ckpt",
    )
    with pytest.raises(UserError) as error:
        plan(cfg)
    assert sorted(line.split(":")[0] for line in error.value.problems) == [
        "backbone.weights",
        "ckpt_path",
        "dataset.shots",
        "scheduler.milestones",
    ]
    with pytest.raises(UserError, match=r"method.patch_size: needs 4 poolings, and 3 layers"):
        plan(composed("backbone=tiny", "method.patch_size=16", "method.layers=3"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.precision=16-mixed", r"trainer.precision: CPUs have no float16 autocast"),
        ("+trainer.max_steps=2", r"trainer.max_steps: is not for runs .*epochs sets the length"),
        ("+trainer.accumulate_grad_batches=2", r"trainer.accumulate_grad_batches: .*BatchNorm"),
        ("trainer.accelerator=warp", r"trainer: Lightning refuses it .*invalid accelerator"),
        ("trainer.strategy=ddq", r"trainer: Lightning refuses it"),
    ],
)
def test_what_the_trainer_refuses_is_a_line(composed, override, message):
    with pytest.raises(UserError, match=message):
        trainer_of(composed("backbone=tiny", "trainer=cpu", override))


def test_short_names_of_precisions_are_lightnings(composed):
    for short, long in (("bf16", "bf16-mixed"), ("32", "32-true"), ("64", "64-true")):
        cfg = composed("backbone=tiny", "trainer=cpu", f"trainer.precision={short}")
        assert trainer_of(cfg).precision == long


def test_more_classes_than_the_backbone_has_are_refused(composed):
    with pytest.raises(UserError, match=r"10 target classes cannot each have one of 9"):
        assemble(composed("backbone=tiny", "backbone.classes=9"))


RECIPES = {
    "paper": (0.01, 1, "published", None),
    "steady": (0.001, "auto", "full", 1),
    "candidate/temperature": (0.01, "auto", "published", None),
    "candidate/held": (0.01, "auto", "published", 1),
    "candidate/held_full": (0.0003, "auto", "full", 1),
    "candidate/held_full_slow": (0.0001, "auto", "full", 1),
    "candidate/held_full_fast": (0.001, "auto", "full", 1),
}


@pytest.mark.parametrize("recipe", [*choices("recipe"), *choices("recipe", "candidate/")])
def test_a_recipe_reaches_the_groups(composed, recipe):
    cfg = composed(f"recipe={recipe}")
    rates = cfg.optimizer.groups
    found = rates.mask_generator.lr, cfg.mapping.temperature, cfg.method.start
    assert (*found, cfg.mapping.refit_until) == RECIPES[recipe]
    assert rates.pattern.lr == 0.01
    assert cfg.recipe.name == recipe.rpartition("/")[2]
    assert cfg.scheduler.milestones == "short"


def test_command_line_before_backbone_before_recipe(composed):
    held = "recipe=steady"
    rate = "optimizer.groups.mask_generator.lr"
    assert composed(held, "backbone=vit_b32").optimizer.groups.mask_generator.lr == 0.001
    chosen = composed(held, "backbone=vit_b32", f"{rate}=0.5", "mapping.temperature=3")
    assert chosen.optimizer.groups.mask_generator.lr == 0.5
    assert chosen.mapping.temperature == 3
    assert composed("recipe.lr.pattern=0.2").optimizer.groups.pattern.lr == 0.2
    assert composed().recipe.name == "steady"
    paper = composed("experiment=paper")
    assert (paper.recipe.name, paper.scheduler.milestones) == ("paper", "paper")


def test_methods_that_cannot_start_as_full_do_not(composed):
    for method in ("only_mask", "smm_single_channel"):
        assert composed("recipe=steady", f"method={method}").method.start == "published"


def test_a_run_is_known_by_what_a_recipe_says_not_by_its_name(composed):
    one, other = "recipe=candidate/held", "recipe=candidate/held_full"
    assert run_key(composed(one, "seed=1")) == run_key(
        composed("recipe=paper", "mapping.temperature=auto", "mapping.refit_until=1", "seed=1")
    )
    keys = [run_key(composed(recipe, "method=full")) for recipe in (one, other)]
    assert keys[0] == keys[1]  # there is no mask generator whose rate could differ
