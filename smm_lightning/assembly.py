"""From a composed configuration to built parts, in the order in which data flows."""

import logging
import os
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback, Checkpoint, RichProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from smm_lightning.backbone import BackboneSpec
from smm_lightning.callbacks import Panels
from smm_lightning.checkpoint import read_checkpoint
from smm_lightning.checkpoint_io import AtomicCheckpointIO
from smm_lightning.dataset import ImageDataModule
from smm_lightning.device import precision_for
from smm_lightning.errors import Problems, UserError, did_you_mean, problem
from smm_lightning.method import InputTransform
from smm_lightning.module import ReprogrammingModule
from smm_lightning.optimizer import OptimizerSpec

_LARGEST_SEED = 2**32 - 1
_PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
# Fields that the group's class does not take: for people and reports, and for the pad method.
_READ_BY_OTHERS = {"dataset": ("name", "native_size")}


@dataclass
class Parts:
    """What a run consists of.

    Args:
        data: the datamodule, set up.
        module: the LightningModule, with everything that it holds.
    """

    data: ImageDataModule
    module: ReprogrammingModule


def assemble(cfg: DictConfig) -> Parts:
    """Build dataset, method, backbone, mapping and module.

    Raises:
        UserError: A line for every problem.
    """
    spec, method, optimizer, data = _cheap_parts(cfg)
    data.setup()
    mapping = build(
        cfg, "mapping", source_classes=spec.source_classes, classes=len(data.class_names)
    )
    backbone = spec.build()
    identity = {group: cfg[group].name for group in ("dataset", "method", "backbone", "mapping")}
    identity |= {"seed": cfg.seed, "image_size": spec.image_size}
    module = ReprogrammingModule(
        method,
        backbone,
        mapping,
        optimizer,
        data.class_names,
        identity,
        data.images,
        compiled=cfg.compiled,
        fused_attention=cfg.fused_attention,
    )
    # What prompt.py needs to build the same parts again, without this configuration.
    module.recipe = {
        group: OmegaConf.to_container(cfg[group], resolve=True)
        for group in ("backbone", "method", "mapping")
    }
    module.recipe["decoding"] = asdict(data.source.decoding)
    return Parts(data, module)


def datamodule(cfg: DictConfig) -> ImageDataModule:
    """The datamodule of a run, before its setup, whether or not the run could start here.

    Raises:
        UserError: If a part of it cannot be built.
    """
    spec = build(cfg, "backbone", name=cfg.backbone.name)
    method = build(cfg, "method", image_size=spec.image_size, mean=spec.mean, std=spec.std)
    data = build(cfg, "dataset", size=method.input_size, augmented=method.augmented)
    return cast("ImageDataModule", data)


def _cheap_parts(
    cfg: DictConfig,
) -> tuple[BackboneSpec, InputTransform, OptimizerSpec, ImageDataModule]:
    """What is built before images or weights are read, so that all problems are found together."""
    problems = Problems()
    _check_run(cfg, problems)
    spec = method = data = optimizer = None
    with problems.caught():
        spec = build(cfg, "backbone", name=cfg.backbone.name)
    with problems.caught():
        optimizer = build(cfg, "optimizer")
    if _is_seed(cfg.seed):
        L.seed_everything(cfg.seed, verbose=False)
    if spec is not None:
        normalization = {"mean": spec.mean, "std": spec.std}
        with problems.caught():
            method = build(cfg, "method", image_size=spec.image_size, **normalization)
    with problems.caught():
        images = {"size": method.input_size, "augmented": method.augmented} if method else {}
        data = build(cfg, "dataset", **images)
    problems.raise_if_any()
    assert spec is not None
    assert method is not None
    assert data is not None
    assert optimizer is not None
    return spec, method, optimizer, data


def build(cfg: DictConfig, group: str, **arguments: Any) -> Any:
    """Instantiate the node ``group``.

    Args:
        cfg: the whole configuration.
        group: name of a node of it.
        arguments: what the configuration does not know.

    Raises:
        UserError: Whatever the constructor found, and values of a wrong type.
    """
    plain = OmegaConf.to_container(cfg[group], resolve=True)
    assert isinstance(plain, dict)
    for field in _READ_BY_OTHERS.get(group, ("name",)):
        plain.pop(field, None)
    try:
        return instantiate(plain, _convert_="all", **arguments)
    except InstantiationException as error:  # Hydra wraps what a constructor raises
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        if isinstance(error.__cause__, TypeError):
            raise problem(group, f"has a value of a wrong type: {error.__cause__}") from error
        raise


def _check_run(cfg: DictConfig, problems: Problems) -> None:
    """What belongs to no part alone: seed, devices, precision, checkpoint."""
    problems.require(
        _is_seed(cfg.seed), "seed", f"must be an integer from 0 to {_LARGEST_SEED}", cfg.seed
    )
    trainer = cfg.trainer
    gpus = torch.cuda.device_count()
    if trainer.accelerator in ("gpu", "cuda"):
        enough = gpus >= (trainer.devices if isinstance(trainer.devices, int) else 1)
        cure = "Use trainer=cpu or fewer trainer.devices."
        problems.require(
            enough,
            "trainer.devices",
            f"this machine has {gpus} CUDA devices",
            trainer.devices,
            cure,
        )
    precision = str(trainer.precision)
    cure = did_you_mean(precision, _PRECISIONS)
    known = precision in _PRECISIONS
    problems.require(known, "trainer.precision", "unknown", trainer.precision, cure)
    for field in ("compiled", "fused_attention"):
        chosen = cfg[field] in (True, False, None)
        problems.require(chosen, field, "must be true, false or null", cfg[field])
    problems.require(
        not (_on_cpu(cfg) and precision == "16-mixed"),
        "trainer.precision",
        "CPUs have no float16 autocast",
        trainer.precision,
        "Use 32-true or bf16-mixed.",
    )
    variables = sorted(name for name in os.environ if name.startswith("PL_TRAINER_"))
    for name in variables:  # Lightning would take them as arguments, past the run's key
        what = "changes the trainer unseen"
        problems.require(not name, name, what, os.environ[name], "Unset it; use trainer.<field>.")
    for field, follows in (("max_epochs", cfg.epochs), ("max_steps", -1)):
        length = trainer.get(field, follows)
        problems.require(
            length == follows,
            f"trainer.{field}",
            "the length of a training, which the learning rates follow, is set by epochs alone",
            length,
            "Use epochs=<number>.",
        )
    problems.require(
        not trainer.get("overfit_batches"),
        "trainer.overfit_batches",
        "would replace the order of the samples by one of Lightning's",
        trainer.get("overfit_batches"),
        "Use debug=overfit.",
    )
    if cfg.ckpt_path is not None:
        with problems.caught():
            read_checkpoint(Path(cfg.ckpt_path))


def _on_cpu(cfg: DictConfig) -> bool:
    chosen = cfg.trainer.accelerator
    return bool(chosen == "cpu" or (chosen == "auto" and not torch.cuda.is_available()))


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= _LARGEST_SEED


def make_logger(cfg: DictConfig) -> Logger | None:
    """The chosen logger with the resolved configuration written to it, or none."""
    if not cfg.get("logger"):
        return None
    logger: Logger = instantiate(cfg.logger)
    logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    return logger


# Advice of Lightning's that does not hold here.
_EXPECTED_WARNINGS = (
    r".*does not have many workers.*",  # images are small, and decoding is a choice of the user
    r"Checkpoint directory .* exists and is not empty.*",  # a run keeps its folder
    r"The number of training batches .* is smaller than the logging interval.*",  # rows are epochs
    r".*available but not used.*",  # trainer=cpu is a choice, too
    r".*a checkpoint that ended before the epoch ended.*",  # the order is derived, not stored
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6.6 on torch 2.15
)


def _silence_lightning() -> None:
    """Leave out Lightning's banner and the warnings that are expected."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)


def _slurm() -> list[SLURMEnvironment]:
    """Under SLURM, submitit puts a job back into the queue; Lightning must not do it, too."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def make_trainer(
    cfg: DictConfig, parts: Parts, own: list[Callback], logger: Logger | None
) -> L.Trainer:
    """The trainer. Progress is a bar on a terminal and a line an epoch elsewhere.

    Args:
        cfg: the whole configuration, whose callbacks come after ``own``.
        parts: what is trained.
        own: callbacks that every run has.
        logger: or none.
    """
    _silence_lightning()
    if isinstance(logger, WandbLogger | TensorBoardLogger):
        own = [*own, Panels(cfg.panels_every_n_epochs)]
    on_terminal = sys.stdout.isatty()
    device = torch.device("cpu" if _on_cpu(cfg) else "cuda")
    network = parts.module.backbone.network
    bar = [RichProgressBar(leave=False)]
    callbacks = [instantiate(node) for node in (cfg.get("callbacks") or {}).values()]
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        precision=precision_for(cfg.trainer.precision, device, network),
        callbacks=[*own, *(bar if on_terminal else []), *callbacks],
        logger=logger or False,
        plugins=[AtomicCheckpointIO(), *_slurm()],
        enable_progress_bar=on_terminal,
        # Else Lightning adds a checkpoint of its own, in the folder where the program was started.
        enable_checkpointing=any(isinstance(each, Checkpoint) for each in callbacks),
    )
    return trainer
