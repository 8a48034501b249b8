"""Train one configuration: ``smm train``. ``--help`` lists the groups, ``-m`` sweeps.

Heavy imports wait until the command line is known to be good.
"""

import logging
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from smm_lightning import sweep
from smm_lightning.errors import Problems, RunEndedError, UserError, problem
from smm_lightning.result import environment, score, summarize, write_result
from smm_lightning.run.config import CONF, print_config, quoted, started_as
from smm_lightning.run.hydra_errors import errors_in_a_line, exit_with
from smm_lightning.run.identity import identity, run_key, run_name
from smm_lightning.run.settings import check_configuration
from smm_lightning.run_folder import RunFolder
from smm_lightning.signals import RunSignals


def train(cfg: DictConfig, *, alone: bool = False) -> dict[str, Any]:
    """Fit, test and write ``result.json``; a finished run is only reported, a cut one goes on.

    Args:
        cfg: composed from ``conf/train.yaml``.
        alone: whether this process is there for this run only.

    Returns:
        The content of ``result.json`` (which a fast development run does not write).

    Raises:
        UserError: For everything that a user can mend, all problems of a configuration at once.
    """
    problems = Problems()
    check_configuration(cfg, problems)
    problems.raise_if_any()
    run = folder_of(cfg)
    if not cfg.force:
        run.require_own()
    if further_rank() or cfg.trainer.get("fast_dev_run"):  # the first rank holds the folder
        return fit(cfg, run, alone=alone)
    finished = finished_before(cfg, run)
    if finished is None:
        with run.claimed():
            finished = finished_before(cfg, run)  # by a process that held the folder
            if finished is None:
                return fit(cfg, run, alone=alone)
    loggers = ", ".join(name for name, node in (cfg.get("logger") or {}).items() if node)
    print(f"{run.path.name} was finished before; force=true runs it again.")
    if loggers:
        print(f"logger={loggers} gets nothing of it; force=true logs it anew.")
    return finished


def finished_before(cfg: DictConfig, run: RunFolder) -> dict[str, Any] | None:
    """The result of an earlier run on the images that are there now, unless it is not wanted.

    Raises:
        UserError: If it was made with other images.
    """
    result = None if cfg.force else run.result()
    if result is not None:
        from smm_lightning.same_images import require_same_images

        require_same_images(cfg, run, result)
    return result


def fit(cfg: DictConfig, run: RunFolder, *, alone: bool) -> dict[str, Any]:
    """Build the parts in the order in which data flows, fit, test, write the result."""
    from smm_lightning.assembly import loggers_of, plan, trainer_of
    from smm_lightning.callbacks import EpochRecorder, SaveBeforeEnd
    from smm_lightning.checkpoint import starting_point
    from smm_lightning.dataset import account
    from smm_lightning.host_memory import keep_freed_memory
    from smm_lightning.logger import closed_at_end, log_configuration
    from smm_lightning.trainer import refusals_in_a_line

    keep_freed_memory()
    summary: dict[str, Any] = {}
    planned = plan(cfg)
    with RunSignals(60 * cfg.stall_minutes, alone=alone) as signals, sweep.threads(cfg.threads):
        recorder = EpochRecorder(run.path / "epochs.csv")
        loggers = [] if cfg.trainer.get("fast_dev_run") else loggers_of(cfg)
        trainer = trainer_of(cfg, [SaveBeforeEnd(signals), recorder], loggers)
        parts = planned.carry_out()
        if cfg.objective == "val/acc" and "val" not in parts.data.evaluation_splits:
            score(cfg.objective, {})  # says what is missing before the training, not after it
        if cfg.force and not further_rank() and not cfg.trainer.get("fast_dev_run"):
            run.begin_anew()
        start = starting_point(run.checkpoint, cfg.ckpt_path, cfg.epochs, anew=cfg.force)
        with closed_at_end(loggers, summary):
            log_configuration(loggers, cfg)
            if trainer.is_global_zero:
                if not sweep.is_job():
                    print_config(cfg)
                print("\n".join(account.lines(parts.data.images, parts.data.overlaps)))
            signals.watch(lambda: parts.data.batches_prepared)
            with refusals_in_a_line():
                trainer.fit(parts.module, datamodule=parts.data, ckpt_path=start)
            last = recorder.history[-1] if recorder.history else {}
            if "test/acc" not in last:  # the last epoch was not tested
                last = dict(trainer.test(parts.module, datamodule=parts.data, verbose=False)[0])
            summary |= {**summarize(recorder.history, last), **parts.module.describe()}
            summary["data/images"] = parts.data.image_counts
            summary |= {
                **parts.data.taken,
                "in_two_splits": [asdict(overlap) for overlap in parts.data.overlaps],
            }
    result = {
        "run_key": run.key,
        "run_name": run_name(cfg),
        "seed": cfg.seed,
        **summary,
        "history": recorder.history,
        "environment": environment(),
        "identity": identity(cfg),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    if trainer.is_global_zero and not cfg.trainer.get("fast_dev_run"):
        write_result(run.path, result)
    return result


def folder_of(cfg: DictConfig) -> RunFolder:
    """The folder of this configuration."""
    return RunFolder(Path(cfg.paths.run), run_key(cfg))


def further_rank() -> bool:
    """Whether this process is a rank other than the first of a run on several devices."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return any(os.environ.get(name, "0") != "0" for name in names)


def print_closing_lines(cfg: DictConfig, result: dict[str, Any], overrides: list[str]) -> None:
    """Accuracy, where the files are, and how to go on."""
    if further_rank():
        return
    last, best = 100 * result["test/acc_last"], 100 * result["test/acc_best"]
    epoch, split = result["best/epoch"] + 1, result["best/selected_on"]
    print(
        f"\ntest accuracy {last:.2f} % (last epoch), {best:.2f} % (best: epoch {epoch}, by {split})"
    )
    if cfg.trainer.get("fast_dev_run") or sweep.is_job():
        return
    folder = Path(cfg.paths.run)
    replaced = ("epochs", "ckpt_path", "force")
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


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(cfg: DictConfig) -> float | None:
    """One job of Hydra: train, and say what came out."""
    hydra_config = HydraConfig.get()
    overrides, swept = list(hydra_config.overrides.task), hydra_config.mode == RunMode.MULTIRUN
    shared = swept and not sweep.has_own_process()
    run = folder_of(cfg)
    try:
        if shared and cfg.isolated:
            finished = finished_before(cfg, run)
            print(f"\n{run.path.name}{': finished before' if finished else ''}", flush=True)
            return score(cfg.objective, finished or sweep.run_alone(overrides, run))
        if shared and cfg.trainer.devices != 1:
            # Lightning starts further ranks with the sweep's own command line.
            cure = "Use isolated=true (a process for each job), or trainer.devices=1."
            got = cfg.trainer.devices
            what = "a sweep within one process runs its jobs on one device each"
            raise problem("trainer.devices", what, got, cure)
        with sweep.leaving_no_trace():
            result = train(cfg, alone=not shared)
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
    print_closing_lines(cfg, result, overrides)
    return score(cfg.objective, result)


def main() -> None:
    """``smm train`` and ``python train.py``."""
    sweep.end_with_the_sweep()
    with errors_in_a_line():
        job()
