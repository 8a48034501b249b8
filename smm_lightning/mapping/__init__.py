"""Label mappings f_out: which source class answers for which target class (paper section 3)."""

from smm_lightning.mapping.assignment import add_pairs, greedy_one_to_one
from smm_lightning.mapping.bayesian import BayesianMapping
from smm_lightning.mapping.label_mapping import LabelMapping, OverRanks
from smm_lightning.mapping.one_to_one import OneToOneMapping, RandomMapping
from smm_lightning.mapping.temperature import Temperature, best_temperature
from smm_lightning.mapping.trained import FeatureHead, LinearMapping

__all__ = [
    "BayesianMapping",
    "FeatureHead",
    "LabelMapping",
    "LinearMapping",
    "OneToOneMapping",
    "OverRanks",
    "RandomMapping",
    "Temperature",
    "add_pairs",
    "best_temperature",
    "greedy_one_to_one",
]
