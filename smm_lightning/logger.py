"""Loggers that need a decision of ours."""

import netrc
import os
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, WandbLogger


def wandb_logger(mode: str = "auto", **options: Any) -> WandbLogger:
    """A wandb logger that never asks for a key: without one it logs offline, and says so.

    Args:
        mode: ``online``, ``offline``, ``disabled`` or ``auto``: online where there is a key.
        options: as for ``WandbLogger``.
    """
    if mode == "auto":
        mode = "online" if _has_key() else "offline"
        if mode == "offline":
            print("wandb: no key found, logging offline; `wandb sync <folder>` uploads it later")
    Path(options["save_dir"]).mkdir(parents=True, exist_ok=True)
    if mode == "online":  # an interrupted run goes on under its id; offline each start is a file
        options["resume"] = "allow"
    return WandbLogger(mode=mode, **options)


def close(logger: Logger | None, summary: dict[str, Any], *, failed: bool) -> None:
    """Write the summary and end the logger's run; a wandb run that failed is marked as failed."""
    if isinstance(logger, WandbLogger):
        import wandb

        logger.experiment.summary.update(summary)
        wandb.finish(exit_code=int(failed))
    elif logger is not None:
        logger.finalize("failed" if failed else "success")


def _has_key() -> bool:
    """Whether wandb would find a key: in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
