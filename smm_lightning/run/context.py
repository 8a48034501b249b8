"""What the shell around a training needs to know of its configuration."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from smm_lightning.files import at
from smm_lightning.run.environment import environment
from smm_lightning.run.folder import RunFolder
from smm_lightning.run.identity import identity, run_key, run_name
from smm_lightning.run.recorded import Tables
from smm_lightning.run.result import Objective

Result = dict[str, Any]


class RunContext:
    """One run: where it lies, and what was asked of it beside the training itself.

    Args:
        config: composed.

    Attributes:
        folder: where its files are.
        epochs: of the training.
        force: begin anew, whatever is there.
        dry: a fast development run, which writes nothing.
        stall_s: seconds without a batch after which it has failed.
        loggers: names of those that were asked for.
        objective: what a search maximises.
    """

    def __init__(self, config: DictConfig) -> None:
        self._config = config
        self.folder = RunFolder(at(config.paths.run), run_key(config))
        self.epochs: int = config.epochs
        self.force: bool = config.force
        trainer = config.get("trainer") or {}
        self.dry = bool(trainer.get("fast_dev_run"))
        self.stall_s: float = 60 * config.stall_minutes
        self.loggers = [name for name, node in (config.get("logger") or {}).items() if node]
        self.objective: Objective = config.objective

    def recorded(self) -> Result | None:
        """Its row in the tables of finished grids, if it stands there.

        Raises:
            UserError: If one of them cannot be read.
        """
        return Tables(self._config.paths.get("results")).rows.get(self.folder.key)

    def result_of(self, outcome: Result) -> Result:
        """The content of ``result.json``.

        Args:
            outcome: by training and testing.
        """
        return {
            "run_key": self.folder.key,
            "run_name": run_name(self._config),
            "seed": self._config.seed,
            **outcome,
            "environment": environment(),
            "identity": identity(self._config),
            "config": OmegaConf.to_container(self._config, resolve=True),
        }
