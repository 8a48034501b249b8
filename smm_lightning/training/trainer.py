"""Lightning's trainer with the settings that hold for every run, and limits to the others."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Annotated, Any, Literal

import lightning as L
import torch
from annotated_types import Ge, Gt, Le
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Callback,
    Checkpoint,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    ProgressBar,
    RichProgressBar,
    StochasticWeightAveraging,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import Logger
from typing_extensions import override

from smm_lightning.device import best_device
from smm_lightning.errors import Problems, UserError, one_line, problem
from smm_lightning.ranges import PRECISIONS, Count
from smm_lightning.training.checkpoint_io import AtomicCheckpointIO

_RESTORING = "lightning.pytorch.trainer.connectors.checkpoint_connector"
_Full = Literal[
    "auto", "published", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true"
]
_Short = Literal["16", "bf16", "32", "64", 16, 32, 64]
Precision = _Full | _Short
Batches = Count | Annotated[float, Gt(0), Le(1)]  # a number of them, or a share of all
# Arguments of Lightning's that a run has its own ways for.
_REFUSED = {
    "max_steps": "epochs sets the length of a training, which the learning rates follow.",
    "accumulate_grad_batches": "It would change BatchNorm in the mask generator: use "
    "micro_batch=<images at a time>.",
    "val_check_interval": "Tests follow epochs: use trainer.check_val_every_n_epoch.",
    "log_every_n_steps": "What is logged are epochs.",
    **dict.fromkeys(("callbacks", "logger"), "Use the group of that name."),
    **dict.fromkeys(
        (
            "barebones",
            "default_root_dir",
            "enable_checkpointing",
            "enable_progress_bar",
            "min_epochs",
            "min_steps",
            "num_sanity_val_steps",
            "plugins",
            "reload_dataloaders_every_n_epochs",
            "use_distributed_sampler",
        ),
        "A run sets it itself.",
    ),
}
_REFUSED_CALLBACKS = (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,  # of the counted mapping, too
)
# Advice of Lightning's that does not hold here.
_EXPECTED_WARNINGS = (
    r".*does not have many workers.*",  # images are small, and decoding is a choice of the user
    r"Checkpoint directory .* exists and is not empty.*",  # a run keeps its folder
    r"The number of training batches .* is smaller than the logging interval.*",  # rows are epochs
    r".*available but not used.*",  # trainer=cpu is a choice, too
    r".*a checkpoint that ended before the epoch ended.*",  # the order is derived, not stored
    r"Found \d+ module\(s\) in eval mode at the start of training.*",  # as it should be
    r"Total length of `list` across ranks is zero.*",  # strict without a val: nothing is watched
    r".*isinstance\(treespec, LeafSpec\).*",  # Lightning 2.6.6 on torch 2.15
)


@dataclass(kw_only=True)
class Settings:
    """What ``conf/trainer`` sets, and what is allowed; the names are Lightning's.

    Attributes:
        accelerator: ``auto``, ``cpu``, ``gpu``, ``mps``, ...
        devices: how many, or which.
        num_nodes: machines.
        strategy: Lightning's name, such as ``ddp``.
        precision: Lightning's name or a short one; ``auto``: see :mod:`device`; ``published``:
            float16 autocast on a GPU, as the published code, else as ``auto``.
        max_epochs: the configuration's ``epochs``.
        check_val_every_n_epoch: test every n epochs.
        limit_train_batches: of an epoch, a number or a share.
        limit_val_batches: likewise of the tests after epochs.
        limit_test_batches: likewise of the last test.
        overfit_batches: train on the same n batches in every epoch, and test on n.
        fast_dev_run: one batch (or so many) of everything, and nothing is written.
        max_time: ``DD:HH:MM:SS`` after which training ends.
        gradient_clip_val: largest norm (or value) of the gradients.
        gradient_clip_algorithm: ``norm`` or ``value``.
        deterministic: ask PyTorch for deterministic kernels.
        benchmark: choose the fastest cuDNN kernels for the sizes at hand.
        detect_anomaly: find the operation that a NaN came from.
        profiler: where the time goes.
        enable_model_summary: print a table of the layers.
    """

    accelerator: str = "auto"
    devices: Annotated[int, Ge(-1), Le(1024)] | str | list[int] = 1
    num_nodes: Count = 1
    strategy: str = "auto"
    precision: Precision = "auto"
    max_epochs: Count = 1
    check_val_every_n_epoch: Count = 1
    limit_train_batches: Batches | None = None
    limit_val_batches: Batches | None = None
    limit_test_batches: Batches | None = None
    overfit_batches: Batches | Literal[0] = 0
    fast_dev_run: bool | Count = False
    max_time: str | None = None
    gradient_clip_val: Annotated[float, Gt(0)] | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    deterministic: bool | Literal["warn"] = False
    benchmark: bool = True
    detect_anomaly: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    enable_model_summary: bool = False


def make_trainer(
    *,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    network_precision: str,
    folder: Path | None = None,
    **options: Any,
) -> L.Trainer:
    """The trainer. Progress is a bar on a terminal and a line an epoch elsewhere.

    Args:
        callbacks: of the run.
        loggers: likewise; none is fine.
        network_precision: what ``precision=auto`` stands for.
        folder: for what a profiler writes.
        options: fields of :class:`Settings`, and any other of ``lightning.pytorch.Trainer``.

    Raises:
        UserError: If Lightning refuses an option, or a run sets it itself.
    """
    settings = Settings(**{k: v for k, v in options.items() if k in Settings.__annotations__})
    others = {name: value for name, value in options.items() if not hasattr(settings, name)}
    _check(settings, others, callbacks)
    _silence_lightning()
    bar = [] if any(isinstance(each, ProgressBar) for each in callbacks) else _progress_bar()
    given = {**asdict(settings), "precision": _precision(settings, network_precision), **others}
    try:
        return L.Trainer(
            callbacks=[*callbacks, *bar],
            logger=list(loggers) or False,
            plugins=[AtomicCheckpointIO(), *_slurm()],
            enable_progress_bar=any(isinstance(each, ProgressBar) for each in [*callbacks, *bar]),
            # Else Lightning adds one of its own, in the folder where the program was started.
            enable_checkpointing=any(isinstance(each, Checkpoint) for each in callbacks),
            num_sanity_val_steps=0,  # ILM has no mapping before the first epoch begins
            use_distributed_sampler=False,  # ours splits every batch among the ranks
            default_root_dir=folder,
            **given,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise problem("trainer", f"Lightning refuses it ({reason})") from error


make_trainer.options_of = Settings  # type: ignore[attr-defined]
Settings.options_of = L.Trainer  # type: ignore[attr-defined]


@contextmanager
def refusals_in_a_line(start: object) -> Iterator[None]:
    """What Lightning refuses only when a training begins: settings, callbacks, checkpoints.

    Args:
        start: the checkpoint that training goes on from.

    Raises:
        UserError: If it does.
    """
    try:
        yield
    except UserError:
        raise
    except MisconfigurationException as error:
        raise problem("trainer", f"Lightning refuses it ({one_line(error)})") from error
    except Exception as error:
        places = {frame.f_globals["__name__"] for frame, _ in walk_tb(error.__traceback__)}
        if EarlyStopping.__module__ in places:  # a metric that no run has
            raise problem("callbacks", one_line(error).rstrip(".")) from error
        if _RESTORING not in places:
            raise
        what = f"no training can go on from it ({one_line(error)})"
        hint = "force=true begins anew."
        raise problem(f"ckpt_path: {start}", what, hint=hint) from error


def device_type(accelerator: str) -> str:
    """The kind of device that an accelerator's name stands for: ``cpu``, ``cuda`` or ``mps``."""
    if accelerator == "auto":
        return best_device()
    kind = {"gpu": "cuda", "cuda": "cuda", "mps": "mps"}.get(accelerator, "cpu")
    return "cpu" if kind == "cuda" and not torch.cuda.is_available() else kind


def _precision(settings: Settings, network_precision: str) -> str:
    """Lightning's name of the precision."""
    chosen = str(settings.precision)
    if chosen in ("auto", "published"):
        halved = chosen == "published" and device_type(settings.accelerator) == "cuda"
        chosen = "16-mixed" if halved else network_precision
    chosen = PRECISIONS.get(chosen, chosen)
    accelerator = settings.accelerator
    on_cpu = accelerator in ("auto", "cpu") and device_type(accelerator) == "cpu"
    if chosen == "16-mixed" and on_cpu:  # Lightning would take bfloat16
        hint = "Use 32-true or bf16-mixed."
        what = "CPUs have no float16 autocast"
        raise problem("trainer.precision", what, settings.precision, hint)
    return chosen


def _check(settings: Settings, others: dict[str, Any], callbacks: Sequence[Callback]) -> None:
    problems = Problems()
    for name in others.keys() & _REFUSED.keys():
        problems.add(f"trainer.{name}", "is not for runs", others[name], _REFUSED[name])
    if settings.max_time is not None and not any(d in settings.max_time for d in "123456789"):
        problems.add("trainer.max_time", "must be DD:HH:MM:SS above 0", settings.max_time)
    for name in sorted(name for name in os.environ if name.startswith("PL_TRAINER_")):
        # Lightning would take them as arguments, past the run's key.
        hint = "Unset it; use trainer.<field>."
        problems.add(name, "changes the trainer unseen", os.environ[name], hint)
    algorithm = settings.gradient_clip_algorithm
    if algorithm is not None and settings.gradient_clip_val is None:
        what, hint = "has no value to clip at", "Use trainer.gradient_clip_val=<number>."
        problems.add("trainer.gradient_clip_algorithm", what, algorithm, hint)
    for callback in callbacks:
        if isinstance(callback, _REFUSED_CALLBACKS):
            what = "changes batches, rates or weights, which a run has its own ways for"
            problems.add("callbacks", what, type(callback).__name__)
    problems.raise_if_any()


def _progress_bar() -> list[ProgressBar]:
    """On a terminal and in a notebook one bar, elsewhere none."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and "IPKernelApp" in shell.config:
        return [TQDMProgressBar(leave=False)]
    return [RichProgressBar(leave=False)] if sys.stdout.isatty() else []


def _silence_lightning() -> None:
    """Leave out Lightning's banner and the warnings that are expected."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    profilers = logging.getLogger("lightning.pytorch.profilers")  # whose report was asked for
    profilers.setLevel(logging.INFO)
    profilers.propagate = False  # to Lightning's handler and Hydra's, which would show it twice
    profilers.handlers = [_Printed()]
    for message in _EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)


class _Printed(logging.Handler):
    """What is logged, on the screen of now."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage())


def _slurm() -> list[SLURMEnvironment]:
    """Under SLURM, submitit puts a job back into the queue; Lightning must not do it, too."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
