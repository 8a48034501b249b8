"""Train one configuration: ``python train.py``. ``--help`` lists the groups, ``-m`` sweeps.

Heavy imports wait until the command line is known to be good.
"""

import logging
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from smm_lightning import cli
from smm_lightning.errors import UserError, problem
from smm_lightning.result import environment, read_result, summarize, write_result

CONF = Path(__file__).parent / "conf"


def train(cfg: DictConfig) -> dict[str, Any]:
    """Fit, test and write ``result.json``; a finished run is only reported.

    Args:
        cfg: composed from ``conf/train.yaml``.

    Returns:
        The content of ``result.json`` (which a fast development run does not write).

    Raises:
        UserError: For everything that a user can mend, all problems of a configuration at once.
    """
    folder, key = Path(cfg.paths.run), cli.run_key(cfg)
    finished = None if cfg.force else read_result(folder, key)
    if finished is not None:
        print("This run was finished before; force=true runs it again.")
        return finished

    from smm_lightning.assembly import assemble, make_logger, make_trainer
    from smm_lightning.callbacks import EpochRecorder
    from smm_lightning.host_memory import keep_freed_memory
    from smm_lightning.logger import close

    keep_freed_memory()
    parts = assemble(cfg)
    recorder = EpochRecorder(folder / "epochs.csv")
    logger = make_logger(cfg)
    trainer = make_trainer(cfg, parts, recorder, logger)
    summary: dict[str, Any] = {}
    try:
        if trainer.is_global_zero:
            cli.print_config(cfg)
        trainer.fit(parts.module, datamodule=parts.data, ckpt_path=cfg.ckpt_path)
        last = recorder.history[-1] if recorder.history else {}
        if "test/acc" not in last:  # the last epoch was not tested
            last = dict(trainer.test(parts.module, datamodule=parts.data, verbose=False)[0])
        summary = {**summarize(recorder.history, last), **parts.module.describe()}
        summary["data/images"] = parts.data.image_counts
    finally:
        close(logger, summary, failed=not summary)
    result = {
        "run_key": key,
        "run_name": cli.run_name(cfg),
        "seed": cfg.seed,
        **summary,
        "history": recorder.history,
        "environment": environment(),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    if trainer.is_global_zero and not cfg.trainer.get("fast_dev_run"):
        write_result(folder, result)
    return result


def print_closing_lines(cfg: DictConfig, result: dict[str, Any], overrides: list[str]) -> None:
    """Accuracy, where the files are, and how to go on."""
    last, best = 100 * result["test/acc_last"], 100 * result["test/acc_best"]
    epoch, split = result["best/epoch"] + 1, result["best/selected_on"]
    print(
        f"\ntest accuracy {last:.2f} % (last epoch), {best:.2f} % (best: epoch {epoch}, by {split})"
    )
    if cfg.trainer.get("fast_dev_run"):
        return
    folder = Path(cfg.paths.run)
    kept = [word for word in overrides if word.split("=")[0] not in ("epochs", "ckpt_path")]
    more = [*kept, f"epochs={2 * cfg.epochs}", f"ckpt_path={folder / 'last.ckpt'}"]
    print(f"files         {folder}/: result.json epochs.csv last.ckpt best.ckpt")
    print(f"continue      python train.py {shlex.join(more)}")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def run(cfg: DictConfig) -> float | None:
    """One job of Hydra: train, and say what came out."""
    job = HydraConfig.get()
    try:
        if job.mode == RunMode.MULTIRUN and cfg.trainer.devices != 1:
            # Lightning starts further ranks with the sweep's own command line.
            cure = "Leave out --multirun for a run on several devices, or use trainer.devices=1."
            got = cfg.trainer.devices
            raise problem("trainer.devices", "a sweep runs its jobs on one device each", got, cure)
        result = train(cfg)
    except UserError as error:
        if job.mode == RunMode.MULTIRUN:  # the other jobs go on
            raise
        discard_empty(Path(cfg.paths.run))
        cli.exit_with(error)
    except Exception:  # Hydra prints the first failure of a sweep only
        logging.getLogger(__name__).exception("this run failed")
        raise
    print_closing_lines(cfg, result, list(job.overrides.task))
    score: float = result["test/acc_last"]
    return score


def discard_empty(folder: Path) -> None:
    """Remove the folder that Hydra made for a run that never began."""
    if {path.name for path in folder.glob("*")} <= {".hydra", "train.log"}:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Check the command line, then let Hydra run it."""
    cli.register_resolvers()
    sys.argv[1:] = cli.without_nulls(sys.argv[1:], CONF)
    cli.check_overrides(sys.argv[1:], CONF, "train")
    run()


if __name__ == "__main__":
    cli.answer_user_errors(main)
