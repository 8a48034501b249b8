"""From a composed configuration to built parts, in the order in which data flows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import lightning as L
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from smm_lightning.backbone import BackboneSpec
from smm_lightning.checkpoint import read_checkpoint
from smm_lightning.classifier import build_classifier
from smm_lightning.dataset import ImageDataModule
from smm_lightning.device import precision_for
from smm_lightning.errors import Problems, UserError, one_line, problem
from smm_lightning.mapping import LabelMapping
from smm_lightning.method import InputTransform
from smm_lightning.run.settings import check_configuration
from smm_lightning.training import Training
from smm_lightning.training.module import ReprogrammingModule
from smm_lightning.training.optimizer import GroupedOptimizer
from smm_lightning.training.trainer import device_type

Kind = TypeVar("Kind")
_KINDS: dict[str, type] = {
    "backbone": BackboneSpec,
    "method": InputTransform,
    "mapping": LabelMapping,
    "dataset": ImageDataModule,
    "optimizer": GroupedOptimizer,
    "trainer": L.Trainer,
}


class Parts(NamedTuple):
    """What a run consists of.

    Attributes:
        data: the datamodule, set up.
        module: the LightningModule, with everything that it holds.
    """

    data: ImageDataModule
    module: ReprogrammingModule


@dataclass
class Plan:
    """What is built before images or weights are read, so that problems cost no time.

    Args:
        cfg: the whole configuration, which has no problem of its own.
        spec: of the backbone.
        method: f_in.
        data: the datamodule, not set up.
        training: optimiser, schedule and loss.
    """

    cfg: DictConfig
    spec: BackboneSpec
    method: InputTransform
    data: ImageDataModule
    training: Training

    def carry_out(self) -> Parts:
        """Read images and weights, and put the parts together.

        Raises:
            UserError: If files are missing or broken, or do not fit each other.
        """
        cfg, spec, data = self.cfg, self.spec, self.data
        data.setup()
        classes = len(data.class_names)
        self.training.prepare(torch.from_numpy(data.labels("train")).bincount(minlength=classes))
        mapping = partial(build, cfg, "mapping")
        classifier = build_classifier(spec, self.method, mapping, data.class_names)
        self.training.rehearse_loss(classes)
        self.training.build(classifier.parameter_groups())  # what a mapping trains has settings
        names = {group: cfg[group].name for group in ("dataset", "method", "backbone", "mapping")}
        parts = {group: _without_name(cfg, group) for group in ("backbone", "method", "mapping")}
        module = ReprogrammingModule(
            classifier,
            self.training,
            {**names, "seed": cfg.seed, "image_size": spec.image_size},
            data.images,
            {**parts, "decoding": asdict(data.source.decoding)},
            compiled=cfg.compiled,
            fused_attention=cfg.fused_attention,
        )
        return Parts(data, module)


def plan(cfg: DictConfig) -> Plan:
    """Check a configuration and build what is cheap.

    Raises:
        UserError: A line for every problem: first of all values, then of what does not fit.
    """
    problems = Problems()
    check_configuration(cfg, problems)
    problems.raise_if_any()
    L.seed_everything(cfg.seed, verbose=False)
    spec = method = data = training = None
    with problems.caught():
        spec = build(cfg, "backbone")
    if spec is not None:
        with problems.caught():
            method = build(cfg, "method", **_of_images(spec))
    with problems.caught():
        data = build(cfg, "dataset", **(_of_prompt(method) if method else {}))
    with problems.caught():
        training = Training(
            build(cfg, "optimizer"),
            build(cfg, "scheduler"),
            build(cfg, "loss"),
            {name: _without_name(cfg, name) for name in ("optimizer", "scheduler")},
        )
        if method is not None:
            training.rehearse(method.parameter_groups(), cfg.epochs)
    if cfg.ckpt_path is not None:
        with problems.caught():
            read_checkpoint(Path(cfg.ckpt_path))
    problems.raise_if_any()
    assert spec is not None
    assert method is not None
    assert data is not None
    assert training is not None
    return Plan(cfg, spec, method, data, training)


def assemble(cfg: DictConfig) -> Parts:
    """Build dataset, method, backbone, mapping and module.

    Raises:
        UserError: A line for every problem.
    """
    return plan(cfg).carry_out()


def datamodule(cfg: DictConfig) -> ImageDataModule:
    """The datamodule of a run, before its setup, whether or not the run could start here.

    Raises:
        UserError: If a part of it cannot be built.
    """
    method = build(cfg, "method", **_of_images(build(cfg, "backbone")))
    return cast("ImageDataModule", build(cfg, "dataset", **_of_prompt(method)))


def trainer_of(
    cfg: DictConfig, own: Sequence[Callback] = (), loggers: Sequence[Logger] = ()
) -> L.Trainer:
    """The trainer of a run.

    Args:
        cfg: the whole configuration, whose callbacks come after ``own``.
        own: callbacks that every run has.
        loggers: of the run.

    Raises:
        UserError: If Lightning refuses a setting, or a callback cannot be built.
    """
    device = torch.device(device_type(cfg.trainer.accelerator))
    with torch.device("meta"):
        network = build(cfg, "backbone").architecture()
    trainer: L.Trainer = build(
        cfg,
        "trainer",
        callbacks=[*own, *build_all(cfg, "callbacks", Callback)],
        loggers=list(loggers),
        network_precision=precision_for("auto", device, network),
    )
    return trainer


def build_all(cfg: DictConfig, group: str, kind: type[Kind]) -> list[Kind]:
    """Instantiate every node of a group of nodes by names.

    Raises:
        UserError: Whatever a constructor finds, and what is not of this kind.
    """
    nodes = cfg.get(group) or {}
    return [_instantiated(nodes[name], f"{group}.{name}", kind) for name in nodes if nodes[name]]


def loggers_of(cfg: DictConfig) -> list[Logger]:
    """The loggers of a run.

    Raises:
        UserError: If one cannot be built.
    """
    return build_all(cfg, "logger", Logger)  # type: ignore[type-abstract]


def build(cfg: DictConfig, group: str, **arguments: Any) -> Any:
    """Instantiate the node ``group``.

    Args:
        cfg: the whole configuration.
        group: name of a node of it.
        arguments: what the configuration does not know.

    Raises:
        UserError: Whatever the constructor finds.
    """
    return _instantiated(_without_name(cfg, group), group, _KINDS.get(group, object), **arguments)


def _instantiated(node: Any, field: str, kind: type, **arguments: Any) -> Any:
    try:
        built = instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:  # Hydra wraps what a constructor raises
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        reason = " ".join(str(error.__cause__ or error).split())
        raise problem(field, f"cannot be built ({reason})") from error
    except TypeError as error:  # of values that Hydra itself cannot read
        raise problem(field, f"cannot be built ({one_line(error)})") from error
    if not isinstance(built, kind):
        raise problem(field, f"must be of the class {kind.__name__}", type(built).__name__)
    return built


def _without_name(cfg: DictConfig, group: str) -> dict[str, Any]:
    plain = cast("dict[str, Any]", OmegaConf.to_container(cfg[group], resolve=True))
    return {field: value for field, value in plain.items() if field != "name"}


def _of_images(spec: BackboneSpec) -> dict[str, Any]:
    return {"image_size": spec.image_size, "mean": spec.mean, "std": spec.std}


def _of_prompt(method: InputTransform) -> dict[str, Any]:
    return {"size": method.input_size, "augmented": method.augmented}
