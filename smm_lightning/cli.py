"""Between the shell and ``train(cfg)``: run names, a search's score, the printed configuration.

Imports no torch, so that ``--help`` and configuration errors answer quickly.
"""

import hashlib
import json
import math
import os
import re
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from smm_lightning.catalog import fact
from smm_lightning.errors import problem
from smm_lightning.identity import decisive_part


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
