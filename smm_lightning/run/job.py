"""A run and its process: finished before, one at a time, a process for each, its last words."""

import logging
import os
import shlex
from collections.abc import Callable

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from smm_lightning.errors import RunEndedError, UserError, of_storage, problem
from smm_lightning.run import sweep
from smm_lightning.run.config import quoted, started_as
from smm_lightning.run.context import Result, RunContext
from smm_lightning.run.hydra_errors import exit_with
from smm_lightning.run.images import require_noted_images
from smm_lightning.run.result import score, write_result

Work = Callable[[], Result]
# What differs between the images of a result and those that are there now.
Since = Callable[[Result], str]


def run_once(run: RunContext, fit: Work, images_since: Since) -> Result:
    """Fit, and write ``result.json`` last; a run that is finished is only read.

    Args:
        run: its folder and what was asked.
        fit: trains and tests in the run's folder, and gives what it found.
        images_since: what changed in the images, asked before a result counts as this run's.

    Raises:
        UserError: If the folder is another run's; or what ``fit`` finds.
    """
    folder = run.folder
    if not run.force and not run.dry:
        folder.require_same_run()
    if further_rank() or run.dry:  # the first rank holds the folder
        return run.result_of(fit())
    finished = finished_before(run, images_since)
    if finished is None:
        with folder.claimed():
            finished = finished_before(run, images_since)  # by one that held the folder
            if finished is None:
                result = run.result_of(fit())
                write_result(folder.path, result)
                return result
    print(f"{folder.path.name} was finished before; force=true runs it again.")
    if run.loggers:
        print(f"logger={', '.join(run.loggers)} gets nothing of it; force=true logs it anew.")
    return finished


def finished_before(run: RunContext, images_since: Since) -> Result | None:
    """The result of an earlier run on the images that are there now, unless it is not wanted.

    Raises:
        UserError: If it was made with other images.
    """
    result = None if run.force else run.folder.result()
    if result is not None:
        folder = str(run.folder.path)
        require_noted_images(result, folder)
        if changed := images_since(result):
            hint = "force=true runs it anew; another paths.root keeps both."
            raise problem(folder, f"was finished with other images: {changed}", hint=hint)
    return result


def recorded_before(run: RunContext, images_since: Since) -> Result | None:
    """The row of a table of finished grids, unless the run is made anew or has its own result."""
    row = None if run.force or run.folder.result() else run.recorded()
    if row is None:
        return None
    name, table = run.folder.path.name, row["recorded"]
    if changed := images_since(row):
        print(f"\n{name}: not the run of {table}, which had other images: {changed}")
        return None
    print(f"\n{name}: stands in {table}; paths.results=null trains it here", flush=True)
    return row


def further_rank() -> bool:
    """Whether this process is a rank other than the first of a run on several devices."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
    return any(os.environ.get(name, "0") != "0" for name in names)


def is_alone() -> bool:
    """Whether this process is there for one run only, and may end with it."""
    if not HydraConfig.initialized():
        return False
    return HydraConfig.get().mode != RunMode.MULTIRUN or sweep.is_alone_in_process()


def run_job(run: RunContext, train: Work, images_since: Since) -> float | None:
    """One job of Hydra: train, and say what came out; of a sweep, in a process of its own.

    Args:
        run: its folder and what was asked.
        train: gives the content of ``result.json``.
        images_since: see :func:`run_once`.

    Returns:
        What a search maximises.
    """
    hydra_config, folder = HydraConfig.get(), run.folder
    overrides, swept = list(hydra_config.overrides.task), hydra_config.mode == RunMode.MULTIRUN
    try:
        if swept and (row := recorded_before(run, images_since)):
            folder.discard_if_empty()
            return _returned(run, row)
        if not is_alone():
            finished = finished_before(run, images_since)
            print(f"\n{folder.path.name}{': finished before' if finished else ''}", flush=True)
            result = finished or sweep.run_alone(overrides, run)
            return None if result is None else _returned(run, result)
        result = train()
    except UserError as error:
        if swept:  # the other jobs go on
            raise RunEndedError("\n".join(error.problems)) from error
        if not sweep.is_job():
            folder.discard_if_empty()
        exit_with(error)  # raised further, Hydra would say something of its own first
    except RunEndedError:  # the run itself has said more
        raise
    except Exception as error:  # Hydra prints the first failure of a sweep only
        if (full := of_storage(error)) and not swept:
            exit_with(full, status=1)
        logging.getLogger(__name__).exception("this run failed")
        raise
    if not further_rank():
        print_closing_lines(run, result, overrides)
    return _returned(run, result)


def accuracies(result: Result) -> str:
    """Of the last epoch, and of the best ones that the run knows."""
    said = [f"{100 * result['test/acc_last']:.2f} % (last epoch)"]
    for split, more in (("val", ""), ("test", ", optimistic")):
        if (best := result.get(f"test/acc_best_{split}")) is not None:
            chosen = result["best/selected_on"] == split
            epoch = f": epoch {result['best/epoch'] + 1}" if chosen else ""
            said.append(f"{100 * best:.2f} % (best on {split}{epoch}{more})")
    return f"test accuracy {', '.join(said)}"


def _returned(run: RunContext, result: Result) -> float | None:
    """To Hydra, whose searches maximise it."""
    if sweep.searches():
        return score(run.objective, result)
    number: float | None = result.get(run.objective)
    return number


def print_closing_lines(run: RunContext, result: Result, overrides: list[str]) -> None:
    """Accuracy, where the files are, and how to go on."""
    print(f"\n{accuracies(result)}")
    if run.dry or sweep.is_job():
        return
    folder = run.folder.path
    replaced = ("epochs", "ckpt_path", "force", "paths.run")
    kept = [word for word in overrides if word.split("=")[0] not in replaced]
    more = [
        *kept,
        *(["force=false"] if run.force else []),
        f"epochs={2 * run.epochs}",
        f"ckpt_path={quoted(str(folder / 'last.ckpt'))}",
    ]
    files = ("result.json", "epochs.csv", "last.ckpt", "best.ckpt")
    print(f"files         {folder}/: {' '.join(n for n in files if (folder / n).is_file())}")
    if (folder / "last.ckpt").is_file() and result["params/trainable"]:
        print(f"continue      {started_as()} {shlex.join(more)}")
