"""The configuration as a whole: what stands at its top, and what each group must hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

from annotated_types import Ge, Gt, Le, MinLen
from omegaconf import DictConfig, OmegaConf

from smm_lightning.errors import Problems
from smm_lightning.ranges import Count, Seed
from smm_lightning.run.card import CHOOSERS, ProtocolName, asks_for
from smm_lightning.run.declared import Name, check_node, check_values
from smm_lightning.run.look import Look, look_of_name
from smm_lightning.run.result import Objective

# Arguments that code adds to a group's node.
PASSED: dict[str, tuple[str, ...]] = {
    "dataset": ("size", "augmented"),
    "method": ("image_size", "mean", "std"),
    "backbone": (),
    "mapping": ("inputs", "classes"),
    "adapter": (),
    "optimizer": (),
    "scheduler": (),
    "loss": (),
    "trainer": ("callbacks", "loggers", "network_precision", "folder"),
}
_NAMED = ("dataset", "method", "backbone", "mapping", "adapter")
_UNTAKEN = ("name", "look")  # fields of these for people, which no constructor takes
_OF_VAL = {"test/loss": "val/loss", "test/loss_last": "val/loss"}  # instead of what the test says
_LISTS = ("callbacks", "logger")  # nodes by names


@dataclass
class Paths:
    """``paths`` of the configuration."""

    root: str | int
    data: str | int
    image_cache: str | int
    run: Annotated[str, MinLen(1)]
    results: str | int | None = None


@dataclass(kw_only=True)
class Recipe:
    """``recipe`` of the configuration: values that are checked where groups take them."""

    name: Name
    lr: dict[str, Any]
    schedule: Any
    temperature: Any
    start: Any
    refit_until: Any


@dataclass(kw_only=True)
class Protocol:
    """``protocol`` of the configuration: its name says what may choose; see :mod:`run.card`."""

    name: ProtocolName
    val_fraction: Any
    use_val: Any
    observe_test: Any
    objective: Any


@dataclass(kw_only=True)
class Settings:
    """The top of ``conf/train.yaml``, which says what each field is for."""

    dataset: dict[str, Any]
    method: dict[str, Any]
    backbone: dict[str, Any]
    mapping: dict[str, Any]
    adapter: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    loss: dict[str, Any]
    trainer: dict[str, Any]
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    protocol: Protocol
    recipe: Recipe
    paths: Paths
    seed: Seed
    epochs: Count
    mask_generator_layers: int
    compiled: bool | None
    fused_attention: bool | None
    evaluation_precision: Literal["same", "full"]
    micro_batch: Count | Literal["auto"] | None
    ckpt_path: str | None
    force: bool
    threads: Annotated[int, Ge(1), Le(1024)] | None
    panels_every_n_epochs: Count
    stall_minutes: Annotated[float, Gt(0), Le(1e6)]
    report: dict[str, Any] | None
    objective: Objective
    tags: list[str | int]
    notes: str | None
    vars: dict[str, Any]


def require_configuration(cfg: DictConfig) -> None:
    """Refuse a configuration with wrong values.

    Raises:
        UserError: A line for every problem.
    """
    problems = Problems()
    check_configuration(cfg, problems)
    problems.raise_if_any()


def check_configuration(cfg: DictConfig, problems: Problems) -> None:
    """Note what is wrong with the values of a configuration; nothing is built.

    Args:
        cfg: composed.
        problems: what was found so far.
    """
    whole = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
    for name in sorted(OmegaConf.missing_keys(whole)):
        problems.add(str(name), "is missing", hint=f"Write {name}=<value>.")
    problems.raise_if_any()  # what follows from a missing value is missing, too
    plain = cast("dict[str, Any]", OmegaConf.to_container(whole, resolve=True))
    groups = {name: plain.get(name) for name in (*PASSED, *_LISTS)}
    # A group's own values are looked at below, with what code adds to them.
    bare = {n: {} if isinstance(v, Mapping) and n in groups else v for n, v in plain.items()}
    check_values(Settings, bare, "", problems)
    for name, passed in PASSED.items():
        node = groups[name]
        if isinstance(node, Mapping):
            check_node(_without_name(name, node, problems), name, problems, passed)
    for name in _LISTS:
        nodes = groups[name]
        for key, node in nodes.items() if isinstance(nodes, Mapping) else ():
            if node is not None:
                check_node(node, f"{name}.{key}", problems)
    _check_pairs(plain, problems)
    _check_choosers(plain, problems)
    raw = cast("dict[str, Any]", OmegaConf.to_container(whole, resolve=False))
    problems.lines = _without_echoes(problems.lines, raw)


def _check_pairs(plain: Mapping[str, Any], problems: Problems) -> None:
    epochs = plain.get("epochs")
    for group, name in (("trainer", "max_epochs"), ("scheduler", "epochs")):
        node = plain.get(group)
        length = node.get(name, epochs) if isinstance(node, Mapping) else epochs
        if length != epochs and epochs == epochs:  # noqa: PLR0124 - NaN is said elsewhere
            problems.add(f"{group}.{name}", "follows epochs", length, "Use epochs=<number>.")
    if plain.get("force") is True and plain.get("ckpt_path") is not None:
        what = "begins anew, and ckpt_path goes on"
        problems.add("force", what, plain["ckpt_path"], "Use one of them.")


def _check_choosers(plain: Mapping[str, Any], problems: Problems) -> None:
    """The test decides only where the protocol lets it."""
    protocol = plain.get("protocol")
    name: Any = protocol.get("name") if isinstance(protocol, Mapping) else None
    if "test" in CHOOSERS.get(name, ("test",)):  # an unknown one is said elsewhere
        return
    for field_, number in asks_for("test", plain, ("objective", "callbacks")).items():
        what = f"the test decides nothing under protocol={name}"
        hint = f"Use {_OF_VAL.get(number, 'val/acc')}, or protocol=published."
        problems.add(field_, what, number, hint)


def _without_echoes(lines: list[str], raw: Mapping[str, Any]) -> list[str]:
    """Leave out what is only said of a value because it follows another one, which is named."""

    def source(line: str) -> str:
        place, _, rest = line.partition(": ")
        node: Any = raw
        for name in place.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        follows = isinstance(node, str) and node.startswith("${")
        return f"{node[2:-1]}: {rest}" if follows else line

    return [line for line in lines if source(line) == line or source(line) not in lines]


def _without_name(group: str, node: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    if group not in _NAMED:
        return dict(node)
    untaken = {name: node.get(name) for name in _UNTAKEN if name in node or name == "name"}
    check_values(_Method if group == "method" else _Named, untaken, group, problems)
    return arguments(node)


def arguments(node: Mapping[str, Any] | DictConfig) -> dict[str, Any]:
    """A node without the fields that no constructor takes, as plain values."""
    plain = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    values = cast("dict[str, Any]", plain)
    return {name: value for name, value in values.items() if name not in _UNTAKEN}


@dataclass
class _Named:
    name: Name


@dataclass
class _Method(_Named):
    look: Look = field(default_factory=lambda: look_of_name("method"))
