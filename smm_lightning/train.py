"""Train one configuration: ``smm train``. ``--help`` lists the groups, ``-m`` sweeps.

Heavy imports wait until the command line is known to be good.
"""

from dataclasses import asdict
from typing import Any

import hydra
from omegaconf import DictConfig

from smm_lightning import sweep
from smm_lightning.result import score, summarize
from smm_lightning.run.config import CONF, print_config
from smm_lightning.run.hydra_errors import errors_in_a_line
from smm_lightning.run.job import further_rank, is_alone, is_dry, run_job, run_once
from smm_lightning.run_folder import RunFolder
from smm_lightning.signals import RunSignals


def train(cfg: DictConfig) -> dict[str, Any]:
    """Fit, test and write ``result.json``; a finished run is only reported, a cut one goes on.

    Args:
        cfg: composed from ``conf/train.yaml``.

    Returns:
        The content of ``result.json`` (which a fast development run does not write).

    Raises:
        UserError: For everything that a user can mend, all problems of a configuration at once.
    """
    return run_once(cfg, fit, same_images)


def fit(cfg: DictConfig, run: RunFolder) -> dict[str, Any]:
    """Build the parts in the order in which data flows, fit, test, say what came out."""
    from smm_lightning.assembly import loggers_of, plan, trainer_of
    from smm_lightning.callbacks import EpochRecorder, SaveBeforeEnd
    from smm_lightning.checkpoint import starting_point
    from smm_lightning.dataset import account
    from smm_lightning.host_memory import keep_freed_memory
    from smm_lightning.training.logger import closed_at_end, log_configuration
    from smm_lightning.training.trainer import refusals_in_a_line

    keep_freed_memory()
    planned = plan(cfg)  # of everything that needs no images and no weights
    with (
        RunSignals(60 * cfg.stall_minutes, alone=is_alone()) as signals,
        sweep.threads(cfg.threads),
    ):
        recorder = EpochRecorder(run.path / "epochs.csv")
        loggers = [] if is_dry(cfg) else loggers_of(cfg)
        trainer = trainer_of(cfg, [SaveBeforeEnd(signals), recorder], loggers)
        data, module = planned.carry_out()
        if cfg.objective == "val/acc" and "val" not in data.evaluation_splits:
            score(cfg.objective, {})  # says what is missing before the training, not after it
        if cfg.force and not further_rank() and not is_dry(cfg):
            run.begin_anew()
        start = starting_point(run.checkpoint, cfg.ckpt_path, cfg.epochs, anew=cfg.force)
        summary: dict[str, Any] = {}
        with closed_at_end(loggers, summary), refusals_in_a_line():
            log_configuration(loggers, cfg)
            if trainer.is_global_zero and not sweep.is_job():
                print_config(cfg)
            if trainer.is_global_zero:
                print("\n".join(account.lines(data.images, data.overlaps)))
            signals.watch(lambda: data.batches_prepared)
            trainer.fit(module, datamodule=data, ckpt_path=start)
            last = recorder.history[-1] if recorder.history else {}
            if "test/acc" not in last:  # the last epoch was not tested
                last = dict(trainer.test(module, datamodule=data, verbose=False)[0])
            summary |= {**summarize(recorder.history, last), **module.describe(), **data.taken}
            summary["data/images"] = data.image_counts
            summary["in_two_splits"] = [asdict(overlap) for overlap in data.overlaps]
    return {**summary, "history": recorder.history}


def same_images(cfg: DictConfig, run: RunFolder, result: dict[str, Any]) -> None:
    """See :func:`same_images.require_same_images`."""
    from smm_lightning.same_images import require_same_images

    require_same_images(cfg, run, result)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(cfg: DictConfig) -> float | None:
    """One job of Hydra."""
    return run_job(cfg, train, same_images)


def main() -> None:
    """``smm train`` and ``python train.py``."""
    sweep.end_with_the_sweep()
    with errors_in_a_line():
        job()
