"""A run and its process: finished before, one at a time, a process for each, its last words."""

import logging
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from smm_lightning import sweep
from smm_lightning.errors import Problems, RunEndedError, UserError, problem
from smm_lightning.result import environment, score, write_result
from smm_lightning.run.config import quoted, started_as
from smm_lightning.run.hydra_errors import exit_with
from smm_lightning.run.identity import identity, run_key, run_name
from smm_lightning.run.settings import check_configuration
from smm_lightning.run_folder import RunFolder

Result = dict[str, Any]
Fit = Callable[[DictConfig, RunFolder], Result]
# Raises a UserError if a result was made with other images than there are now.
Compare = Callable[[DictConfig, RunFolder, Result], None]


def run_once(cfg: DictConfig, fit: Fit, same_images: Compare) -> Result:
    """Fit, and write ``result.json`` last; a run that is finished is only read.

    Args:
        cfg: composed.
        fit: trains and tests in the run's folder, and gives what it found.
        same_images: asked before a result counts as that of this run.

    Raises:
        UserError: All problems of values at once, before anything is done; or what ``fit`` finds.
    """
    problems = Problems()
    check_configuration(cfg, problems)
    problems.raise_if_any()
    run = folder_of(cfg)
    if not cfg.force and not is_dry(cfg):
        run.require_own()
    if further_rank() or is_dry(cfg):  # the first rank holds the folder
        return _whole(cfg, run, fit(cfg, run))
    finished = finished_before(cfg, run, same_images)
    if finished is None:
        with run.claimed():
            finished = finished_before(cfg, run, same_images)  # by one that held the folder
            if finished is None:
                result = _whole(cfg, run, fit(cfg, run))
                write_result(run.path, result)
                return result
    loggers = ", ".join(name for name, node in (cfg.get("logger") or {}).items() if node)
    print(f"{run.path.name} was finished before; force=true runs it again.")
    if loggers:
        print(f"logger={loggers} gets nothing of it; force=true logs it anew.")
    return finished


def finished_before(cfg: DictConfig, run: RunFolder, same_images: Compare) -> Result | None:
    """The result of an earlier run on the images that are there now, unless it is not wanted.

    Raises:
        UserError: If it was made with other images.
    """
    result = None if cfg.force else run.result()
    if result is not None:
        same_images(cfg, run, result)
    return result


def folder_of(cfg: DictConfig) -> RunFolder:
    """The folder of this configuration."""
    return RunFolder(Path(cfg.paths.run), run_key(cfg))


def is_dry(cfg: DictConfig) -> bool:
    """Whether this is a fast development run, which writes nothing."""
    return bool(cfg.trainer.get("fast_dev_run"))


def further_rank() -> bool:
    """Whether this process is a rank other than the first of a run on several devices."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return any(os.environ.get(name, "0") != "0" for name in names)


def is_alone() -> bool:
    """Whether this process is there for one run only, and may end with it."""
    if not HydraConfig.initialized():
        return False
    return HydraConfig.get().mode != RunMode.MULTIRUN or sweep.has_own_process()


def run_job(
    cfg: DictConfig, train: Callable[[DictConfig], Result], same_images: Compare
) -> float | None:
    """One job of Hydra: train, and say what came out; of a sweep, in a process of its own.

    Args:
        cfg: composed by Hydra.
        train: see ``train.train``.
        same_images: see :func:`run_once`.

    Returns:
        What a search maximises.
    """
    hydra_config = HydraConfig.get()
    overrides, swept = list(hydra_config.overrides.task), hydra_config.mode == RunMode.MULTIRUN
    run = folder_of(cfg)
    try:
        if not is_alone() and cfg.isolated:
            finished = finished_before(cfg, run, same_images)
            print(f"\n{run.path.name}{': finished before' if finished else ''}", flush=True)
            return score(cfg.objective, finished or sweep.run_alone(overrides, run))
        if not is_alone() and cfg.trainer.devices != 1:
            # Lightning starts further ranks with the sweep's own command line.
            cure = "Use isolated=true (a process for each job), or trainer.devices=1."
            what = "a sweep within one process runs its jobs on one device each"
            raise problem("trainer.devices", what, cfg.trainer.devices, cure)
        with sweep.leaving_no_trace():
            result = train(cfg)
    except UserError as error:
        if swept:  # the other jobs go on
            raise RunEndedError("\n".join(error.problems)) from error
        if not sweep.is_job():
            run.discard_if_empty()
        exit_with(error)  # raised further, Hydra would say something of its own first
    except RunEndedError:  # the run itself has said more
        raise
    except Exception:  # Hydra prints the first failure of a sweep only
        logging.getLogger(__name__).exception("this run failed")
        raise
    if not further_rank():
        print_closing_lines(cfg, result, overrides)
    return score(cfg.objective, result)


def print_closing_lines(cfg: DictConfig, result: Result, overrides: list[str]) -> None:
    """Accuracy, where the files are, and how to go on."""
    last, best = 100 * result["test/acc_last"], 100 * result["test/acc_best"]
    epoch, split = result["best/epoch"] + 1, result["best/selected_on"]
    print(
        f"\ntest accuracy {last:.2f} % (last epoch), {best:.2f} % (best: epoch {epoch}, by {split})"
    )
    if is_dry(cfg) or sweep.is_job():
        return
    folder = Path(cfg.paths.run)
    replaced = ("epochs", "ckpt_path", "force", "paths.run")
    kept = [word for word in overrides if word.split("=")[0] not in replaced]
    more = [
        *kept,
        *(["force=false"] if cfg.force else []),
        f"epochs={2 * cfg.epochs}",
        f"ckpt_path={quoted(str(folder / 'last.ckpt'))}",
    ]
    files = ("result.json", "epochs.csv", "last.ckpt", "best.ckpt")
    print(f"files         {folder}/: {' '.join(n for n in files if (folder / n).is_file())}")
    if (folder / "last.ckpt").is_file():
        print(f"continue      {started_as()} {shlex.join(more)}")


def _whole(cfg: DictConfig, run: RunFolder, found: Result) -> Result:
    return {
        "run_key": run.key,
        "run_name": run_name(cfg),
        "seed": cfg.seed,
        **found,
        "environment": environment(),
        "identity": identity(cfg),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
