"""How far a training is, also before Lightning has resumed it."""

from typing import Any

import lightning as L


def progress_of(trainer: L.Trainer) -> tuple[int, int]:
    """The epoch, and how many of its steps are done.

    In a checkpoint written during or after the last step of an epoch, that epoch may still count as
    begun and not ended: its steps are done, and the next one begins.
    """
    fit = trainer.fit_loop
    epochs: Any = fit.epoch_progress.current
    steps: Any = fit.epoch_loop.batch_progress
    if epochs.started == epochs.processed:
        epoch, done = epochs.processed, 0
    elif steps.is_last_batch:
        epoch, done = epochs.started, 0
    else:
        epoch, done = epochs.processed, steps.current.processed
    overfitted = trainer.overfit_batches > 0  # type: ignore[attr-defined]
    return (0 if overfitted else epoch), done
