"""What happens beside the training: history, checkpoints."""

from smm_lightning.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from smm_lightning.callbacks.recorder import EpochRecorder

__all__ = ["BestCheckpoint", "EpochRecorder", "LastCheckpoint"]
