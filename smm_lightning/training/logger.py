"""Loggers: wandb without questions, and an orderly end for all of them."""

import netrc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from smm_lightning.errors import one_line, problem

Mode = Literal["auto", "online", "offline", "disabled"]


def wandb_logger(
    *,
    save_dir: str | Path,
    mode: Mode = "auto",
    project: str | int = "smm-lightning",
    entity: str | None = None,
    name: str | None = None,
    id: str | None = None,  # noqa: A002 - wandb's name
    group: str | None = None,
    job_type: str | int | None = None,
    tags: Sequence[str | int] = (),
    notes: str | None = None,
    **options: Any,
) -> WandbLogger:
    """A wandb logger that never asks for a key: without one it logs offline, and says so.

    Args:
        save_dir: the run's folder.
        mode: ``auto``: as WANDB_MODE says, else online where there is a key.
        project: where the runs are.
        entity: user or team; ``None``: the default of the key.
        name: of the run.
        id: of the run, by which it goes on as one curve.
        group: of runs that belong together.
        job_type: within the group.
        tags: for filters.
        notes: for people.
        options: as for ``WandbLogger`` and ``wandb.init``.
    """
    wanted = os.environ.get("WANDB_MODE", "")
    if mode == "auto" and wanted in ("online", "offline", "disabled"):
        mode = cast("Mode", wanted)
    if mode == "auto":
        mode = "online" if _has_key() else "offline"
        if mode == "offline":
            print("wandb: no key found, logging offline; `wandb sync <folder>` uploads it later")
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    if mode == "online":  # an interrupted run goes on under its id; offline each start is a file
        options["resume"] = "allow"
    return WandbLogger(
        save_dir=save_dir,
        mode=mode,
        project=str(project),
        entity=entity,
        name=name,
        id=id,
        group=group,
        job_type=None if job_type is None else str(job_type),
        tags=[str(tag) for tag in tags],
        notes=notes,
        **options,
    )


def log_configuration(loggers: Sequence[Logger], cfg: DictConfig) -> None:
    """Write the resolved configuration to every logger.

    Raises:
        UserError: If one cannot begin, whose options or folder show that only now.
    """
    for logger in loggers:
        try:
            getattr(logger, "experiment", None)  # some begin only when it is asked for
            logger.log_hyperparams(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
        except Exception as error:  # every library has its own
            what = f"{type(logger).__name__} cannot begin ({one_line(error)})"
            raise problem("logger", what) from error


@contextmanager
def closed_at_end(loggers: Sequence[Logger], summary: dict[str, Any]) -> Iterator[None]:
    """Write what ``summary`` holds in the end and end the loggers' runs, failed ones as failed."""
    try:
        yield
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                import wandb

                if wandb.run is not None:  # else it could not begin
                    logger.experiment.summary.update(summary)
                    wandb.finish(exit_code=int(not summary))
            else:
                logger.finalize("success" if summary else "failed")


def _has_key() -> bool:
    """Whether wandb would find a key: in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
