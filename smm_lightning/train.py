"""Train one configuration: ``smm train``. ``--help`` lists the groups, ``-m`` sweeps.

Heavy imports wait until the command line is known to be good.
"""

from functools import partial
from typing import Any

import hydra
from omegaconf import DictConfig

from smm_lightning.errors import problem
from smm_lightning.run import sweep
from smm_lightning.run.config import CONF, print_config
from smm_lightning.run.context import RunContext
from smm_lightning.run.hydra_errors import errors_in_a_line
from smm_lightning.run.job import further_rank, is_alone, run_job, run_once
from smm_lightning.run.result import score, summarize
from smm_lightning.run.screen import kept_screen
from smm_lightning.run.settings import require_configuration
from smm_lightning.run.signals import RunSignals


def train(cfg: DictConfig) -> dict[str, Any]:
    """Fit, test and write ``result.json``; a finished run is only reported, a cut one goes on.

    Args:
        cfg: composed from ``conf/train.yaml``.

    Returns:
        The content of ``result.json`` (which a fast development run does not write).

    Raises:
        UserError: For everything that a user can mend, all problems of a configuration at once.
    """
    require_configuration(cfg)
    run = RunContext(cfg)
    return run_once(run, partial(fit, cfg, run), partial(images_since, cfg))


def fit(cfg: DictConfig, run: RunContext) -> dict[str, Any]:
    """Parts in the order in which data flows, fit, test, and what came out."""
    from smm_lightning.dataset import account
    from smm_lightning.device import keep_freed_memory
    from smm_lightning.run.checkpoint import starting_point
    from smm_lightning.training import EpochRecorder, GracefulStop
    from smm_lightning.training.assembly import build_all, build_trainer, plan
    from smm_lightning.training.logger import closed_at_end, log_configuration
    from smm_lightning.training.trainer import refusals_in_a_line

    keep_freed_memory()
    planned = plan(cfg)  # what needs no images and no weights
    signalled = RunSignals(run.stall_s, alone=is_alone(), note=run.folder.note_batch)
    with signalled as signals, sweep.threads(cfg.threads):
        recorder = EpochRecorder(run.folder.path / "epochs.csv")
        callbacks = [GracefulStop(signals), recorder]
        callbacks += build_all(cfg.get("callbacks"), "callbacks")
        loggers = [] if run.dry else build_all(cfg.get("logger"), "logger")
        spec, folder = planned.pieces.backbone, run.folder.path
        trainer = build_trainer(cfg.trainer, spec, callbacks, loggers, folder)
        data, module = planned.carry_out()
        if cfg.ckpt_path is not None and module.idle is not None:
            raise problem("ckpt_path", "nothing is trained here, so nothing can go on")
        if run.objective == "val/acc" and "val" not in data.evaluation_splits:
            score(run.objective, {})  # says what is missing before the training, not after it
        if run.force and not further_rank() and not run.dry:
            run.folder.begin_anew()
        start = starting_point(run.folder.checkpoint, cfg.ckpt_path, run.epochs, anew=run.force)
        summary: dict[str, Any] = {}
        with closed_at_end(loggers, summary), refusals_in_a_line(start):
            log_configuration(loggers, cfg)
            if trainer.is_global_zero:
                if not sweep.is_job():
                    print_config(cfg)
                print("\n".join(account.lines(data.images, data.overlaps)))
            data.on_batch = signals.progressed
            signals.progressed()  # the first batch is waited for, too
            trainer.fit(module, datamodule=data, ckpt_path=start)
            last = recorder.history[-1] if recorder.history else {}
            if "test/acc" not in last:  # the last epoch was not tested
                last = dict(trainer.test(module, datamodule=data, verbose=False)[0])
            summary |= summarize(recorder.history, last) | module.describe() | data.taken
            summary |= account.facts(data.image_counts, data.overlaps)
            summary["diagnosis"] = recorder.diagnosis(len(data.class_names))
    return {**summary, "history": recorder.history}


def images_since(cfg: DictConfig, result: dict[str, Any]) -> str:
    """See :func:`same_images.images_since`."""
    from smm_lightning.training.same_images import images_since

    return images_since(cfg.paths.run, cfg.backbone, cfg.method, cfg.dataset, result)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(cfg: DictConfig) -> float | None:
    """One job of Hydra."""
    return run_job(RunContext(cfg), partial(train, cfg), partial(images_since, cfg))


def main() -> None:
    """``smm train`` and ``python train.py``."""
    sweep.end_with_the_sweep()
    with kept_screen(), errors_in_a_line():
        job()
