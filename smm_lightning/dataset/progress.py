"""How far a training is, also before Lightning has resumed it."""

from typing import Any


def progress_of(trainer: Any) -> tuple[int, int]:
    """The epoch of Lightning's trainer, and how many of its steps are done.

    In a checkpoint written during or after the last step of an epoch, that epoch may still count as
    begun and not ended: its steps are done, and the next one begins.
    """
    fit = trainer.fit_loop
    epochs, steps = fit.epoch_progress.current, fit.epoch_loop.batch_progress
    if epochs.started == epochs.processed:
        epoch, done = epochs.processed, 0
    elif steps.is_last_batch:
        epoch, done = epochs.started, 0
    else:
        epoch, done = epochs.processed, steps.current.processed
    return (0 if trainer.overfit_batches > 0 else epoch), done
