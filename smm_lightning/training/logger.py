"""Loggers: wandb without questions, and an orderly end for all of them."""

import netrc
import os
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, Literal, cast
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig, OmegaConf

from smm_lightning.errors import one_line, problem

Mode = Literal["auto", "online", "offline", "disabled"]
_OLD_NAMES = {"dryrun": "offline", "run": "online"}
_LATER = "`wandb sync <folder>` uploads it later"
_PATIENCE_S = 5
_GUARDED = ("log_metrics", "log_graph", "save", "after_save_checkpoint", "finalize")


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
    """A wandb logger that never asks for a key: without one, or a server, it logs offline.

    Args:
        save_dir: the run's folder.
        mode: ``auto``: as wandb's own settings say (WANDB_MODE, ``wandb offline``), and online only
            where its server is reached and knows a key.
        project: where the runs are.
        entity: user or team; ``None``: the default of the key.
        name: of the run.
        id: of the run, by which it goes on as one curve.
        group: of runs that belong together.
        job_type: within the group.
        tags: for filters.
        notes: for people.
        options: as for ``WandbLogger`` and ``wandb.init``.

    Raises:
        UserError: If ``online`` was asked for and the server cannot be reached.
    """
    mode = _mode(mode)
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


@contextmanager
def quietly(logger: Logger) -> Iterator[None]:
    """A logger that fails costs no run: that is said once."""
    try:
        yield
    except Exception as error:  # every library has its own
        if not getattr(logger, "said_that_it_fails", False):
            logger.said_that_it_fails = True  # type: ignore[attr-defined]
            name = type(logger).__name__
            print(f"logger: {name} failed ({one_line(error)}); the run goes on", flush=True)


def guard(logger: Logger) -> None:
    """Let Lightning's calls of a logger fail :func:`quietly`."""

    def guarded(method: Callable[..., Any]) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            with quietly(logger):
                method(*args, **kwargs)

        return call

    for name in _GUARDED:
        setattr(logger, name, guarded(getattr(logger, name)))


def log_configuration(loggers: Sequence[Logger], cfg: DictConfig) -> None:
    """Write the resolved configuration to every logger; from now on, they fail quietly.

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
        guard(logger)


@contextmanager
def closed_at_end(loggers: Sequence[Logger], summary: dict[str, Any]) -> Iterator[None]:
    """Write what ``summary`` holds in the end and end the loggers' runs, failed ones as failed."""
    try:
        yield
    finally:
        for logger in loggers:
            with quietly(logger):
                _close(logger, summary)


def _close(logger: Logger, summary: dict[str, Any]) -> None:
    if not isinstance(logger, WandbLogger):
        logger.finalize("success" if summary else "failed")
        return
    import wandb

    if wandb.run is not None:  # else it could not begin
        logger.experiment.summary.update(summary)
        wandb.finish(exit_code=int(not summary))


def _mode(wanted: Mode) -> Mode:
    """How wandb can log; why it logs offline is said in a line.

    Raises:
        UserError: See :func:`wandb_logger`.
    """
    import wandb

    settings = wandb.setup().settings
    own = _OLD_NAMES.get(settings.mode, settings.mode)
    if wanted == "auto" and own != "online":
        return cast("Mode", own)
    if wanted in ("offline", "disabled"):
        return wanted
    insisted = wanted == "online" or "WANDB_MODE" in os.environ
    if not insisted and not _has_key(settings.base_url):
        print(f"wandb: no key for {settings.base_url}, logging offline; {_LATER}")
        return "offline"
    if reason := _unreachable(settings.base_url):
        if insisted:
            what = f"its server cannot be reached ({reason})"
            hint = "logger.wandb.mode=offline logs without it."
            raise problem("logger.wandb", what, settings.base_url, hint)
        print(f"wandb: {settings.base_url} cannot be reached ({reason}), logging offline; {_LATER}")
        return "offline"
    return "online"


def _has_key(url: str) -> bool:
    """Whether wandb would find a key, as its ``login`` does, but without asking for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        keys = netrc.netrc(os.environ.get("NETRC"))
        return keys.authenticators(urlsplit(url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _unreachable(url: str) -> str:
    """Why a server gives no answer of any kind; empty if it does."""
    answers: Queue[str] = Queue()

    def ask() -> None:
        try:
            urlopen(f"{url}/healthz", timeout=_PATIENCE_S).close()  # noqa: S310 - wandb's own setting
        except HTTPError:  # an answer
            pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            answers.put("" if isinstance(reason, ssl.SSLError) else one_line(reason))
            return
        answers.put("")

    # Looking up a name may take longer than any timeout that one can set.
    Thread(target=ask, daemon=True).start()
    try:
        return answers.get(timeout=_PATIENCE_S + 1)
    except Empty:
        return "no answer"
