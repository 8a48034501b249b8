"""Training under Lightning: the module, the optimiser and what is minimised, the trainer."""

from smm_lightning.training.checkpoints import BestCheckpoint, LastCheckpoint
from smm_lightning.training.graceful_stop import GracefulStop
from smm_lightning.training.history import EpochRecorder
from smm_lightning.training.loss import CrossEntropy
from smm_lightning.training.module import ReprogrammingModule
from smm_lightning.training.optimizer import Group, GroupedOptimizer
from smm_lightning.training.panels import TensorBoardPanels, WandbPanels
from smm_lightning.training.prompt_recorder import PromptRecorder
from smm_lightning.training.schedule import Constant, Cosine, Milestones
from smm_lightning.training.training import Training

__all__ = [
    "BestCheckpoint",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "EpochRecorder",
    "GracefulStop",
    "Group",
    "GroupedOptimizer",
    "LastCheckpoint",
    "Milestones",
    "PromptRecorder",
    "ReprogrammingModule",
    "TensorBoardPanels",
    "Training",
    "WandbPanels",
]
