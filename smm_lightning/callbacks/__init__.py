"""What happens beside the training: history, checkpoints, an orderly end."""

from smm_lightning.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from smm_lightning.callbacks.ending import SaveBeforeEnd
from smm_lightning.callbacks.panels import TensorBoardPanels, WandbPanels
from smm_lightning.callbacks.prompt import PromptRecorder
from smm_lightning.callbacks.recorder import EpochRecorder

__all__ = [
    "BestCheckpoint",
    "EpochRecorder",
    "LastCheckpoint",
    "PromptRecorder",
    "SaveBeforeEnd",
    "TensorBoardPanels",
    "WandbPanels",
]
