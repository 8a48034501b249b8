"""The runs of an experiment, without running them: Hydra's own expansion of a sweep.

Imports no torch: a status or a report must answer at once.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from smm_lightning.errors import did_you_mean, problem
from smm_lightning.files import at
from smm_lightning.run.config import CONF, hydra_of, parsed
from smm_lightning.run.folder import RunFolder
from smm_lightning.run.hydra_errors import explain
from smm_lightning.run.identity import RunKeys, copied, run_name
from smm_lightning.run.recorded import Tables

ALL_TABLES = "all_tables"  # stands for all grids of the paper
_NAME = "${run_name:}"
_WHERE = ("hydra/launcher", "hydra.launcher")  # overrides that say where runs run, not which


@dataclass(frozen=True)
class Job:
    """One run of a grid.

    Attributes:
        overrides: its part of the sweep, such as ``("method=smm", "seed=0")``.
        config: composed, not resolved.
        run: where it lies.
    """

    overrides: tuple[str, ...]
    config: DictConfig
    run: RunFolder

    @property
    def tables(self) -> Tables:
        """Of finished grids, in which it may stand."""
        return Tables(self.config.paths.results)

    def value(self, field: str) -> Any:
        """Of a dotted field; ``None`` where this run has no such field."""
        return OmegaConf.select(self.config, field, throw_on_missing=False)


def expand(experiment: str, overrides: Sequence[str] = (), config_dir: Path = CONF) -> list[Job]:
    """The runs of ``experiment``, in the order in which Hydra starts them.

    Args:
        experiment: a file of ``conf/experiment`` that holds a sweep.
        overrides: as after ``./multirun.sh <experiment>``.
        config_dir: the folder ``conf``.

    Raises:
        UserError: If there is no such experiment, it is no sweep, an override is wrong, or two
            jobs are the same run.
    """
    known = [path.stem for path in (config_dir / "experiment").glob("*.yaml")]
    if experiment not in known:
        raise problem("experiment", "unknown", experiment, did_you_mean(experiment, known))
    arguments = [f"experiment={experiment}", *decisive(overrides)]
    with _explained(arguments), hydra_of(config_dir):
        fixed = [a for a in arguments if not parsed([a])[0].is_sweep_override()]
        sweeper = compose("train", fixed, return_hydra_config=True).hydra.sweeper
        if not sweeper._target_.endswith("BasicSweeper"):
            raise problem("experiment", "is a search, not a grid", experiment)
        params = sweeper.params
        if not params and len(fixed) == len(arguments):
            raise problem("experiment", "is no sweep", experiment, "Use it with python train.py.")
        swept = parsed([f"{key}={values}" for key, values in (params or {}).items()] + arguments)
        (combinations,) = BasicSweeper.split_arguments(swept, max_batch_size=None)
        axes = {o.get_key_element() for o in swept if o.is_sweep_override()} | set(params or {})
        if not combinations:
            raise problem(experiment, "the sweep has no value", " ".join(overrides))
        jobs = list(_jobs(combinations, axes, config_dir))
    names = [job.run.path.name for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise problem(experiment, "two jobs are the same run", twice[0], "Leave one of them out.")
    return jobs


def paper_grids(config_dir: Path = CONF) -> list[str]:
    """The experiments that are tables and figures of the paper, in its order."""
    stems = [path.stem for path in (config_dir / "experiment").glob("*.yaml")]
    found = [
        match for stem in stems if (match := re.fullmatch(r"(table|figure)(\d+)(_\w+)?", stem))
    ]
    return [match[0] for match in sorted(found, key=lambda m: (m[1] == "figure", int(m[2]), m[0]))]


def decisive(overrides: Sequence[str]) -> list[str]:
    """Those that say which runs there are, not where they run."""
    return [o for o in overrides if not o.lstrip("+~").startswith(_WHERE)]


def _jobs(combinations: list[list[str]], axes: set[str], config_dir: Path) -> Iterator[Job]:
    """Compose once for every choice of a group; plain values are set on copies, which is faster."""
    groups = {str(p.relative_to(config_dir)) for p in config_dir.rglob("*") if p.is_dir()}
    composed, keys = Composed(axes & groups, config_dir, combinations), RunKeys()
    for combination in combinations:
        plain = [o for o in parsed(combination) if _is_plain(o, axes, groups)]
        set_later = {override.input_line for override in plain}
        config = copied(composed(tuple(a for a in combination if a not in set_later)))
        for override in plain:
            OmegaConf.update(config, override.key_or_group, override.value())
        swept = tuple(a for a in combination if a.partition("=")[0] in axes)
        shared = tuple(a for a in combination if not a.startswith("seed="))
        yield Job(swept, config, _folder_of(config, keys.key(config, shared)))


class Composed:
    """Configurations by their words, of which those that differ in groups alone share their work.

    A choice whose files write into their own group alone changes that node and nothing else (unless
    a file chose by interpolation, such as ``/x: ${dataset}``; none does). So the second choices of
    all groups are composed together, and so on.

    Args:
        axes: groups that are swept over.
        config_dir: the folder ``conf``.
        combinations: the words of all jobs.
    """

    def __init__(
        self, axes: set[str], config_dir: Path, combinations: Iterable[Sequence[str]]
    ) -> None:
        self.axes = axes
        self.config_dir = config_dir
        self._choices: dict[str, list[str]] = {}  # words of what stays in its node
        for word in dict.fromkeys(word for words in combinations for word in words):
            group, _, choice = word.partition("=")
            if group in axes and self._is_apart(group, choice):
                self._choices.setdefault(group, []).append(word)
        self._known = cache(self._put_together)
        self._composed = cache(lambda words: compose("train", list(words)))

    def __call__(self, words: tuple[str, ...]) -> DictConfig:
        """The configuration of a job, not to be changed."""
        return self._known(words)

    def _put_together(self, words: tuple[str, ...]) -> DictConfig:
        config = copied(self._of_choices(words, 0))
        for word in words:
            group, choices = self._alternatives(word)
            if word in choices and (number := choices.index(word)):
                config[group] = self._of_choices(words, number)[group]
        return config

    def _alternatives(self, word: str) -> tuple[str, list[str]]:
        """A word's group, and all words of the group that stay in its node."""
        group = word.partition("=")[0]
        return group, self._choices.get(group, [])

    def _of_choices(self, words: tuple[str, ...], number: int) -> DictConfig:
        """With this choice of every group that stays in its node; the last one, if it has fewer."""
        changed = []
        for word in words:
            _, choices = self._alternatives(word)
            changed.append(choices[min(number, len(choices) - 1)] if word in choices else word)
        return self._composed(tuple(changed))

    def _is_apart(self, group: str, choice: str) -> bool:
        """Whether the file of a choice, and those that it names as defaults, stay in their node."""
        file = self.config_dir / group / f"{choice}.yaml"
        if not file.is_file():
            return False
        text = file.read_text()
        defaults = (yaml.safe_load(text) or {}).get("defaults") or []
        plain = all(isinstance(name, str) for name in defaults) and "@package" not in text
        return plain and all(n == "_self_" or self._is_apart(group, n) for n in defaults)


def _folder_of(config: DictConfig, key: str) -> RunFolder:
    """Where a job lies; its name is made of its key, because resolving takes long."""
    paths = cast("dict[str, Any]", OmegaConf.to_container(config.paths, resolve=False))
    if _NAME not in str(paths["run"]):
        return RunFolder(at(config.paths.run), key)
    named = {**paths, "run": str(paths["run"]).replace(_NAME, run_name(config, key))}
    asked = {name for value in named.values() for name in re.findall(r"\$\{([^}]*)", str(value))}
    if all(name.startswith(("paths.", "oc.env:")) for name in asked):
        return RunFolder(at(OmegaConf.create({"paths": named}).paths.run), key)
    whole = copied(config)
    whole.paths.run = named["run"]
    return RunFolder(at(whole.paths.run), key)


def _is_plain(override: Override, axes: set[str], groups: set[str]) -> bool:
    """Whether it sets a value that may differ from job to job."""
    key = override.key_or_group
    return override.type == OverrideType.CHANGE and key in axes and key not in groups


@contextmanager
def _explained(arguments: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise explain(error, arguments) or error from error
