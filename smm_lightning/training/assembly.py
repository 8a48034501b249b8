"""From a composed configuration to built parts, in the order in which data flows."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import lightning as L
import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig

from smm_lightning.backbone import Adapter, BackboneSpec
from smm_lightning.classifier import Pieces, ReprogrammedClassifier
from smm_lightning.dataset import ImageDataModule
from smm_lightning.dataset.image_folder import ONE_CLASS
from smm_lightning.device import precision_for
from smm_lightning.errors import Problems, UserError, one_line, problem
from smm_lightning.files import at
from smm_lightning.mapping import LabelMapping
from smm_lightning.method import InputTransform
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.run.identity import run_key
from smm_lightning.run.settings import arguments, require_configuration
from smm_lightning.training import Training
from smm_lightning.training.micro_batch import MicroBatches
from smm_lightning.training.module import ReprogrammingModule
from smm_lightning.training.optimizer import GroupedOptimizer
from smm_lightning.training.provenance import Provenance
from smm_lightning.training.trainer import device_type

Node = Mapping[str, Any] | DictConfig  # of the configuration
_KINDS: dict[str, type] = {
    "backbone": BackboneSpec,
    "method": InputTransform,
    "mapping": LabelMapping,
    "adapter": Adapter,
    "dataset": ImageDataModule,
    "optimizer": GroupedOptimizer,
    "trainer": L.Trainer,
    "callbacks": Callback,
    "logger": Logger,
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
        pieces: of the classifier.
        data: the datamodule, not set up.
        training: optimiser, schedule and loss.
        identity: see :class:`Provenance`.
        run_key: likewise.
        options: of the LightningModule.
    """

    pieces: Pieces
    data: ImageDataModule
    training: Training
    identity: dict[str, Any]
    run_key: str
    options: dict[str, Any]

    def carry_out(self) -> Parts:
        """Read images and weights, and put the parts together.

        Raises:
            UserError: If files are missing or broken, or do not fit each other.
        """
        data, training = self.data, self.training
        data.setup()
        classes = len(data.class_names)
        if classes == 1:
            where = f"{data.source.name}/train"
            raise problem(where, "has one class only", data.class_names[0], ONE_CLASS)
        training.prepare(torch.from_numpy(data.labels("train")).bincount(minlength=classes))
        nodes = {**self.pieces.nodes, "decoding": asdict(data.source.decoding)}
        pieces = self.pieces._replace(nodes=nodes)
        classifier = ReprogrammedClassifier.build(pieces, data.class_names)
        training.rehearse_loss(classes)
        if groups := classifier.parameter_groups():  # what mapping and adapter train has settings
            training.build(groups)
        provenance = Provenance(self.identity, data.images, self.run_key)
        return Parts(data, ReprogrammingModule(classifier, training, provenance, **self.options))


def plan(cfg: DictConfig) -> Plan:
    """Check a configuration and build what is cheap.

    Raises:
        UserError: A line for every problem: first of all values, then of what does not fit.
    """
    require_configuration(cfg)
    problems = Problems()
    # Before any part is built: the mask generator begins with random weights.
    # Not by Lightning's seed_everything, which leaves variables in the environment.
    for draws in (torch.manual_seed, np.random.seed, random.seed):
        draws(cfg.seed)
    spec = method = data = adapter = training = None
    with problems.caught():
        spec = build(cfg.backbone, "backbone")
    if spec is not None:
        with problems.caught():
            method = _method_for(spec, cfg.method)
    with problems.caught():
        data = _data_for(method, cfg.dataset)
    with problems.caught():
        adapter = build(cfg.adapter, "adapter")
    with problems.caught():
        training = Training(
            build(cfg.optimizer, "optimizer"),
            build(cfg.scheduler, "scheduler"),
            build(cfg.loss, "loss"),
            {name: arguments(cfg[name]) for name in ("optimizer", "scheduler")},
        )
        if method is not None:
            training.rehearse(method.parameter_groups(), cfg.epochs)
    if cfg.ckpt_path is not None:
        with problems.caught():
            read_checkpoint(at(cfg.ckpt_path))
    problems.raise_if_any()
    assert spec is not None
    assert method is not None
    assert data is not None
    assert adapter is not None
    assert training is not None
    mapping = partial(build, cfg.mapping, "mapping")
    reads = getattr(get_object(cfg.mapping._target_), "reads", LabelMapping.reads)
    groups = ("backbone", "method", "mapping", "adapter")
    nodes = {group: arguments(cfg[group]) for group in groups}
    return Plan(
        Pieces(spec, method, mapping, reads, adapter, nodes),
        data,
        training,
        {**_names(cfg), "seed": cfg.seed, "image_size": spec.image_size},
        run_key(cfg),
        {
            "compiled": cfg.compiled,
            "fused_attention": cfg.fused_attention,
            "full_evaluation": cfg.evaluation_precision == "full",
            "micro_batches": MicroBatches(cfg.micro_batch, at(cfg.paths.run)),
        },
    )


def _names(cfg: DictConfig) -> dict[str, Any]:
    groups = ("dataset", "method", "backbone", "mapping", "adapter")
    return {group: cfg[group].name for group in groups}


def build_data(backbone: Node, method: Node, dataset: Node) -> ImageDataModule:
    """The datamodule of a run, before its setup, whether or not the run could start here.

    Raises:
        UserError: If a part of it cannot be built.
    """
    return _data_for(_method_for(build(backbone, "backbone"), method), dataset)


def build_trainer(
    node: Node,
    backbone: BackboneSpec,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    folder: Path | None = None,
) -> L.Trainer:
    """The trainer of a run.

    Args:
        node: of the configuration.
        backbone: whose kind of network decides about the precision.
        callbacks: of the run.
        loggers: likewise.
        folder: likewise.

    Raises:
        UserError: If Lightning refuses a setting.
    """
    with torch.device("meta"):  # without memory and random numbers: only its layers are looked at
        network = backbone.architecture()
    precision = precision_for("auto", torch.device(device_type(node["accelerator"])), network)
    parts = {"callbacks": list(callbacks), "loggers": list(loggers), "network_precision": precision}
    parts["folder"] = folder
    return cast("L.Trainer", build(node, "trainer", **parts))


def build_all(nodes: Node | None, group: Literal["callbacks", "logger"]) -> list[Any]:
    """Instantiate every node of a group of nodes by names.

    Raises:
        UserError: Whatever a constructor finds, and what is not of this kind.
    """
    named = cast("Mapping[str, Any]", nodes or {}).items()
    return [_instantiated(node, f"{group}.{name}", _KINDS[group]) for name, node in named if node]


def build(node: Node, group: str, **passed: Any) -> Any:
    """Instantiate a node.

    Args:
        node: of the configuration.
        group: its name there.
        passed: what the configuration does not know.

    Raises:
        UserError: Whatever the constructor finds.
    """
    return _instantiated(arguments(node), group, _KINDS.get(group, object), **passed)


def _instantiated(node: Any, field: str, kind: type, **passed: Any) -> Any:
    try:
        built = instantiate(node, _convert_="all", **passed)
    except InstantiationException as error:  # Hydra wraps what a constructor raises
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        reason = " ".join(str(error.__cause__ or error).split())
        if isinstance(error.__cause__, ModuleNotFoundError) and "tensorboard" in reason:
            hint = "Install it: pip install 'smm-lightning[tensorboard]'."  # Lightning names others
            raise problem(field, "needs the package tensorboard", hint=hint) from error
        raise problem(field, f"cannot be built ({reason})") from error
    except TypeError as error:  # of values that Hydra itself cannot read
        raise problem(field, f"cannot be built ({one_line(error)})") from error
    if not isinstance(built, kind):
        raise problem(field, f"must be of the class {kind.__name__}", type(built).__name__)
    return built


def _method_for(spec: BackboneSpec, node: Node) -> InputTransform:
    return cast("InputTransform", build(node, "method", **spec.of_images))


def _data_for(method: InputTransform | None, node: Node) -> ImageDataModule:
    """Of whatever size, without a method: where only its files or its values are looked at."""
    of_prompt = {} if method is None else {"size": method.input_size, "augmented": method.augmented}
    data = cast("ImageDataModule", build(node, "dataset", **of_prompt))
    data.name = str(node.get("name") or data.name)
    return data
