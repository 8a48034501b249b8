"""Training under Lightning: the module, the optimiser and what is minimised, the trainer."""

from smm_lightning.training.loss import CrossEntropy
from smm_lightning.training.module import ReprogrammingModule
from smm_lightning.training.optimizer import Constant, Cosine, Group, GroupedOptimizer, Milestones
from smm_lightning.training.training import Training

__all__ = [
    "Constant",
    "Cosine",
    "CrossEntropy",
    "Group",
    "GroupedOptimizer",
    "Milestones",
    "ReprogrammingModule",
    "Training",
]
