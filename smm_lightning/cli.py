"""Between the shell and ``train(cfg)``: run names, checked overrides, the printed configuration.

Imports no torch, so that ``--help`` and configuration errors answer quickly.
"""

import hashlib
import importlib.util
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from smm_lightning.catalog import fact
from smm_lightning.errors import Problems, UserError, closest, did_you_mean, problem
from smm_lightning.identity import decisive_part

USAGE_ERROR = 2
# Choices of Hydra's groups that a plugin provides: their first word, the plugin, our extra.
_PLUGINS = (
    ("hydra/launcher", "ray", "hydra_ray_launcher", "ray"),
    ("hydra/launcher", "s", "hydra_submitit_launcher", "slurm"),
    ("hydra/sweeper", "optuna", "hydra_optuna_sweeper", "optuna"),
)


def result_relevant(config: DictConfig) -> dict[str, Any]:
    """The part of the configuration that decides about the result."""
    return decisive_part(cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False)))


def run_key(config: DictConfig) -> str:
    """Eight characters that are the same for the same result-relevant configuration."""
    text = json.dumps(result_relevant(config), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(config: DictConfig) -> str:
    """Folder of a run, such as ``digits-smm-efficientnet_lite0-ilm-s0-1f2e3d4c``.

    The same configuration gives the same folder, so repeating a command finds its run again.
    """
    names = [config[group].name for group in ("dataset", "method", "backbone", "mapping")]
    readable = "-".join(re.sub(r"[^\w.]+", "_", str(name)) for name in names)
    return f"{readable}-s{config.seed}-{run_key(config)}"


def positive(config: DictConfig, field: str) -> float:
    """The number of a field that must be above zero.

    Raises:
        UserError: If it is none.
    """
    value = config[field]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise problem(field, "must be a positive number", value)
    return float(value)


def score(config: DictConfig, result: dict[str, Any]) -> float:
    """What a search over configurations maximises.

    Raises:
        UserError: If the result has no such number, such as ``val/acc`` without a ``val`` split.
    """
    value = result.get(config.objective)
    if not isinstance(value, int | float):
        cure = "For val/acc, set dataset.val_fraction or take a dataset that has a val split."
        raise problem("objective", "the result has no such number", config.objective, cure)
    return float(value)


def further_rank() -> bool:
    """Whether this process is a rank other than the first of a run on several devices."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return any(os.environ.get(name, "0") != "0" for name in names)


def grid_name(config: DictConfig) -> str:
    """The experiment that a run was started for, or the name of its dataset."""
    chosen = (
        HydraConfig.get().runtime.choices.get("experiment") if HydraConfig.initialized() else None
    )
    return str(chosen or config.dataset.name)


def register_resolvers() -> None:
    """Make ``${run_name:}`` and ``${fact:dataset,field}`` known to the configuration files."""
    OmegaConf.register_new_resolver("fact", fact, replace=True)
    for name, function in (("run_name", run_name), ("run_key", run_key), ("grid_name", grid_name)):
        OmegaConf.register_new_resolver(
            name, lambda *, _root_, function=function: function(_root_), replace=True
        )


def exit_with(error: UserError) -> NoReturn:
    """Print every problem on a line of its own and leave with exit status 2."""
    for line in error.problems:
        print(f"error: {line}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


def without_nulls(arguments: list[str], config_dir: Path) -> list[str]:
    """``group=null`` in words that Hydra takes: ``group=none`` where there is such a choice.

    Hydra refuses ``null`` as a choice. Groups without a ``none`` (experiment, debug) are empty
    unless they are asked for, so the argument is dropped.
    """
    kept = []
    for argument in arguments:
        group, _, value = argument.partition("=")
        if value != "null" or not (config_dir / group).is_dir():
            kept.append(argument)
        elif (config_dir / group / "none.yaml").is_file():
            kept.append(f"{group}=none")
    return kept


def check_overrides(arguments: list[str], config_dir: Path, config_name: str) -> None:
    """Find unknown groups, choices and fields before Hydra composes the configuration.

    Hydra stops at the first one, without a suggestion.

    Args:
        arguments: of the command line; options that begin with ``-`` are Hydra's.
        config_dir: the folder ``conf``.
        config_name: of the primary configuration.

    Raises:
        UserError: A line for every problem.
    """
    problems = Problems()
    overrides = list(_parsed([a for a in arguments if not a.startswith("-")], problems))
    groups = {str(p.relative_to(config_dir)) for p in config_dir.rglob("*") if p.is_dir()}
    fields: list[Override] = []
    choices: list[str] = []
    for override in overrides:
        name = override.key_or_group
        if name == "hydra" or name.startswith(("hydra.", "hydra/")):
            _check_plugin(name, _values(override), problems)
            continue
        if name not in groups:
            fields.append(override)
        elif _check_choices(override, config_dir / name, problems) and not override.is_delete():
            choices.append(f"{name}={_first_choice(override, config_dir / name)}")
    _check_fields(fields, groups, choices, config_dir, config_name, problems)
    problems.raise_if_any()


def _parsed(arguments: list[str], problems: Problems) -> Iterator[Override]:
    parser = OverridesParser.create()
    for argument in arguments:
        try:
            yield parser.parse_override(argument)
        except HydraException:
            cure = "Write field=value or group=choice; quote values with special characters."
            problems.require(False, argument, "is no override", argument, cure)  # noqa: FBT003


def _values(override: Override) -> list[str]:
    """All values of a sweep, or the one value, as they stand on the command line."""
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [override.get_value_element_as_str()]


def _check_plugin(group: str, choices: list[str], problems: Problems) -> None:
    for of_group, word, plugin, extra in _PLUGINS:
        if group == of_group and choices[0].startswith(word):
            there = importlib.util.find_spec(f"hydra_plugins.{plugin}") is not None
            cure = f"Install it: pip install 'smm-lightning[{extra}]'."
            problems.require(there, group, "needs a plugin", choices[0], cure)


def _first_choice(override: Override, folder: Path) -> str:
    pattern: Any = override.value()
    if isinstance(pattern, Glob):
        return str(pattern.filter(sorted(path.stem for path in folder.glob("*.yaml")))[0])
    return _values(override)[0]


def _check_choices(override: Override, folder: Path, problems: Problems) -> bool:
    known = {path.stem for path in folder.glob("*.yaml")}
    before = len(problems.found)
    pattern: Any = override.value()
    if isinstance(pattern, Glob):
        ok, where = bool(pattern.filter(sorted(known))), override.key_or_group
        cure = f"Known: {', '.join(sorted(known))}."
        problems.require(ok, where, "the pattern matches no choice", override.input_line, cure)
    elif not override.is_delete():
        _check_once(override, problems)
        for value in _values(override):
            chosen = [part.strip() for part in value.strip("[]").split(",")]
            for name in chosen:
                ok = name in known
                where = override.key_or_group
                problems.require(ok, where, "unknown choice", name, did_you_mean(name, known))
    return len(problems.found) == before


def _check_once(override: Override, problems: Problems) -> None:
    """A sweep that names a value twice would start the same run twice, perhaps at the same time."""
    if override.is_sweep_override() and override.is_discrete_sweep():
        values = _values(override)
        twice = sorted({value for value in values if values.count(value) > 1})
        problems.require(
            not twice, override.key_or_group, "the sweep names a value twice", ", ".join(twice)
        )


def _check_fields(
    fields: list[Override],
    groups: set[str],
    choices: list[str],
    config_dir: Path,
    config_name: str,
    problems: Problems,
) -> None:
    config = _composed(choices, config_dir, config_name)
    known = sorted(_names(config))
    for override in fields:
        name = override.key_or_group
        _check_once(override, problems)
        exists = name in known or override.is_add() or override.is_force_add()
        cure = closest(name, [*known, *groups])
        problems.require(
            exists,
            name,
            "no such field",
            override.input_line,
            cure or "`python train.py --cfg job` prints all fields.",
        )


def _composed(choices: list[str], config_dir: Path, config_name: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
        return compose(config_name, overrides=choices)


def _names(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all nodes."""
    if OmegaConf.is_dict(config):
        for key in config:
            name = f"{prefix}{key}"
            yield name
            value = None if OmegaConf.is_missing(config, key) else config._get_node(key)
            if OmegaConf.is_dict(value):
                yield from _names(value, f"{name}.")


def answer_user_errors(main: Callable[[], None]) -> None:
    """Run ``main``; a broken configuration ends with a line, not with a traceback."""
    try:
        main()
    except UserError as error:
        exit_with(error)
    except (HydraException, OmegaConfBaseException) as error:
        exit_with(UserError(" ".join(f"configuration: {error}".split())))


def print_config(config: DictConfig) -> None:
    """The resolved configuration as a tree."""
    from rich.console import Console
    from rich.syntax import Syntax
    from rich.tree import Tree

    tree = Tree("configuration", guide_style="dim")
    for key in config:
        node = config[key]
        if OmegaConf.is_config(node):
            text = OmegaConf.to_yaml(node, resolve=True).rstrip()
            branch = tree.add(str(key))
            branch.add(Syntax(text, "yaml", background_color="default"))
        else:
            tree.add(f"{key!s}: {node}")
    Console().print(tree)
