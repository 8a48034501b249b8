"""Label mappings f_out: which source class answers for which target class (paper section 3)."""

from smm_lightning.mapping.assignment import count_pairs, greedy_one_to_one
from smm_lightning.mapping.label_mapping import LabelMapping, OneToOneMapping, RandomMapping

__all__ = ["LabelMapping", "OneToOneMapping", "RandomMapping", "count_pairs", "greedy_one_to_one"]
