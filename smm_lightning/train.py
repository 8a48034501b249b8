"""Train one configuration: ``smm train``. ``--help`` lists the groups, ``-m`` sweeps.

Heavy imports wait until the command line is known to be good.
"""

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf

from smm_lightning.errors import problem
from smm_lightning.files import at
from smm_lightning.run import sweep
from smm_lightning.run.card import asks_for, chooser, protocol_card
from smm_lightning.run.config import CONF, print_config
from smm_lightning.run.context import RunContext
from smm_lightning.run.hydra_errors import errors_in_a_line
from smm_lightning.run.job import further_rank, is_alone, run_job, run_once
from smm_lightning.run.result import best_of, summarize
from smm_lightning.run.screen import kept_screen
from smm_lightning.run.settings import require_configuration
from smm_lightning.run.signals import RunSignals

if TYPE_CHECKING:
    from collections.abc import Mapping

    import lightning as L

    from smm_lightning.dataset import ImageDataModule
    from smm_lightning.training import EpochRecorder
    from smm_lightning.training.module import ReprogrammingModule


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
        if "val" not in data.evaluation_splits:
            deciding = ("objective", "callbacks") if sweep.searches() else ("callbacks",)
            for field, number in asks_for("val", cfg, deciding).items():
                hint = "Set dataset.val_fraction, or take a dataset that has a val split."
                raise problem(field, "there is no val to measure it on", number, hint)
        if run.force and not further_rank() and not run.dry:
            run.folder.begin_anew()
        left, key = run.folder.checkpoint, run.folder.key
        start = starting_point(left, cfg.ckpt_path, run.epochs, key, anew=run.force or run.dry)
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
            summary |= outcome(cfg, trainer, data, module, recorder)
    return {**summary, "history": recorder.history}


def outcome(
    cfg: DictConfig,
    trainer: "L.Trainer",
    data: "ImageDataModule",
    module: "ReprogrammingModule",
    recorder: "EpochRecorder",
) -> dict[str, Any]:
    """What ``result.json`` says of a training that has ended, with the tests that are still due."""
    from smm_lightning.training.checkpoints import test_best

    history = recorder.history
    if not _whole_tests(trainer):  # what they say of some test images is no result
        history = [{k: v for k, v in row.items() if not k.startswith("test/")} for row in history]
    last: Mapping[str, float] = history[-1] if history else {}
    if "test/acc" not in last:  # the last epoch was not tested
        last = trainer.test(module, datamodule=data, verbose=False)[0]
    best = best_of(history, chooser(cfg.protocol.name, data.evaluation_splits))
    summary = summarize(history, last, best) | module.describe() | data.taken
    summary["data/images"] = data.image_counts
    summary["in_two_splits"] = [asdict(overlap) for overlap in data.overlaps]
    summary["diagnosis"] = recorder.diagnosis(len(data.class_names))
    told = {
        "history": recorder.history,
        "preprocessing": data.preprocessing,
        "normalisation": module.classifier.backbone.normalisation,
        "refresh": module.classifier.label_mapping.refresh,
        "reads": module.classifier.label_mapping.reads,
    }
    settled = cast("dict[str, Any]", OmegaConf.to_container(cfg, resolve=True))
    summary["card"] = protocol_card(settled, {**summary, **told})
    if best.selected_on == "val" and summary["test/acc_best_val"] is None:
        # Last, as the module then has other weights than the last ones.
        tested = test_best(trainer, module, data, at(cfg.paths.run), best.epoch)
        summary["test/acc_best_val"] = tested
    return summary


def _whole_tests(trainer: "L.Trainer") -> bool:
    """Whether tests after epochs measure all images, and not ``limit_val_batches`` of them."""
    limit = trainer.limit_val_batches
    return isinstance(limit, float) and limit == 1  # the int 1 is one batch


def images_since(cfg: DictConfig, result: dict[str, Any]) -> str:
    """See :func:`same_images.images_since`."""
    from smm_lightning.training.same_images import images_since

    return images_since(cfg, result)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(cfg: DictConfig) -> float | None:
    """One job of Hydra."""
    return run_job(RunContext(cfg), partial(train, cfg), partial(images_since, cfg))


def main() -> None:
    """``smm train`` and ``python train.py``."""
    sweep.end_with_the_sweep()
    with kept_screen(), errors_in_a_line():
        job()
