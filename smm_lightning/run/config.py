"""Where the configuration lies, what its files may ask for, and how values are written for it.

Importing this makes ``${run_name:}``, ``${run_key:}``, ``${grid_name:}`` and ``${home:<path>}``,
which replaces ``~``, known to OmegaConf.
"""

import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from smm_lightning.files import at
from smm_lightning.run.identity import run_key, run_name

_PACKAGE = Path(__file__).parent.parent
# In a wheel the groups are part of the package; a checkout reads the folder beside its own package.
CONF = next(place / "conf" for place in (_PACKAGE, _PACKAGE.parent) if (place / "conf").is_dir())


@contextmanager
def hydra_of(config_dir: Path = CONF) -> Iterator[None]:
    """Hydra with a folder ``conf``; one that runs already, say a user's own, goes on after it."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running


def composed(words: Iterable[str]) -> DictConfig:
    """The configuration that ``smm train`` has with these words."""
    with hydra_of():
        return compose("train", list(words))


def parsed(words: Iterable[str]) -> list[Override]:
    """Words of a command line; Hydra runs, as globs ask it for the choices of a group."""
    loader = GlobalHydra.instance().config_loader()
    return OverridesParser.create(config_loader=loader).parse_overrides(list(words))


def quoted(text: str) -> str:
    """A value as Hydra reads it on a command line: in quotes, if it holds what means something."""
    if re.fullmatch(r"[\w./~-]+", text):
        return text
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)  # backslashes count before a quote alone
    end = re.search(r"\\*$", escaped)
    return f"'{escaped}{end[0] if end else ''}'"


def started_as() -> str:
    """The command that trains, as this program was started."""
    program = Path(sys.argv[0])
    if program.name == "train.py":
        return f"python {shlex.quote(str(program))}"
    return "python -m smm_lightning train" if program.name == "__main__.py" else "smm train"


def grid_name(config: DictConfig) -> str:
    """The experiment that a run was started for, or the name of its dataset."""
    known = HydraConfig.initialized()
    chosen = HydraConfig.get().runtime.choices.get("experiment") if known else None
    return str(chosen or config.dataset.name)


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


for _name, _function in (("run_name", run_name), ("run_key", run_key), ("grid_name", grid_name)):
    OmegaConf.register_new_resolver(
        _name, lambda *, _root_, function=_function: function(_root_), replace=True
    )
OmegaConf.register_new_resolver("home", lambda place: str(at(place)), replace=True)
