"""A sweep that would run nothing, or the same run twice, is refused before its first run."""

from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from smm_lightning.errors import Problems
from smm_lightning.run.hydra_errors import exit_with


class SweepCheck(Callback):
    """Hydra calls it when a sweep begins; ``conf/train.yaml`` names it."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Look at every axis of the sweep.

        Raises:
            SystemExit: With a line for every problem; Hydra turns other errors into warnings.
        """
        params = config.hydra.sweeper.get("params") or {}
        axes = [f"{name}={values}" for name, values in params.items()]
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        problems = Problems()
        for override in parser.parse_overrides([*axes, *config.hydra.overrides.task]):
            _check(override, problems)
        if problems.found:
            exit_with(problems.as_error())


def _check(override: Override, problems: Problems) -> None:
    if not override.is_sweep_override() or not override.is_discrete_sweep():
        return
    name, values = override.key_or_group, list(override.sweep_string_iterator())
    twice = sorted({value for value in values if values.count(value) > 1})
    problems.require(bool(values), name, "the sweep has no value", override.input_line)
    problems.require(not twice, name, "the sweep names a value twice", ", ".join(twice))
