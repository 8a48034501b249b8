"""What Hydra is told to look at before a run or a sweep begins: nothing is written before."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from smm_lightning.errors import Problems, UserError, problem
from smm_lightning.files import at
from smm_lightning.run.config import parsed
from smm_lightning.run.context import RunContext
from smm_lightning.run.hydra_errors import exit_with, explain
from smm_lightning.run.settings import PASSED, check_configuration

_OF_ONE_CHOICE = (*PASSED, "protocol", "recipe")


class Checks(Callback):
    """Hydra calls it; ``conf/train.yaml`` names it.

    It ends the program with a line for every problem: Hydra turns other errors of a callback into
    warnings.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Look at every value, and whether the run can have its folder.

        Raises:
            SystemExit: If there is a problem.
        """
        problems = Problems()
        with _exiting():
            check_configuration(config, problems)
            for override in parsed(config.hydra.overrides.task):
                _check_choice(override, problems)
            problems.raise_if_any()
            for place in {config.paths.run, config.hydra.run.dir}:
                _require_folder(at(place))
            run = RunContext(config)
            if not run.force and not run.dry:
                run.folder.require_same_run()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Look at every axis of the sweep.

        Raises:
            SystemExit: If one is empty or names a value twice.
        """
        sweeper, problems = config.hydra.sweeper, Problems()
        params = sweeper.get("params") or {}
        axes = [f"{name}={values}" for name, values in params.items()]
        with _exiting():
            for name, values in params.items():
                what, where = "must be text, such as '1,2'", f"hydra.sweeper.params.{name}"
                problems.require(isinstance(values, str), where, what, values)
            trials = sweeper.get("n_trials", 1)
            problems.require(trials >= 1, "hydra.sweeper.n_trials", "must be at least 1", trials)
            problems.raise_if_any()
            for override in parsed([*axes, *config.hydra.overrides.task]):
                _check_choice(override, problems)
                _check_axis(override, problems)
            problems.raise_if_any()
            _require_folder(at(config.paths.root))


@contextmanager
def _exiting() -> Iterator[None]:
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        exit_with(explain(error, []) or UserError(str(error)))


def _require_folder(path: Path) -> None:
    """A folder is made only by the run itself; whether it could be is tried beside it."""
    try:
        there = next((place for place in (path, *path.parents) if place.exists()), path)
        if not there.is_dir():
            raise NotADirectoryError(f"{there} is no folder")
        if there != path:  # under another name, because another process may be making it
            Path(tempfile.mkdtemp(dir=there)).rmdir()
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "Choose another paths.root."
        raise problem("paths.run", f"cannot be made ({reason})", str(path), hint) from error


def _check_choice(override: Override, problems: Problems) -> None:
    """Hydra merges several choices of a group into one, of which no table says what it is."""
    group, choice = override.key_or_group, override.value()
    if group in _OF_ONE_CHOICE and isinstance(choice, list):
        hint = f"A sweep over them: -m {group}={','.join(map(str, choice))}."
        problems.add(group, "takes one choice", override.input_line, hint)


def _check_axis(override: Override, problems: Problems) -> None:
    if not override.is_sweep_override() or not override.is_discrete_sweep():
        return
    name, values = override.key_or_group, list(override.sweep_string_iterator())
    twice = sorted({value for value in values if values.count(value) > 1})
    problems.require(bool(values), name, "the sweep has no value", override.input_line)
    problems.require(not twice, name, "the sweep names a value twice", ", ".join(twice))
