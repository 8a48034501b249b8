"""Equation 1 in one module, what builds it, and its files."""

from smm_lightning.classifier.parts import Pieces, TrustedParts
from smm_lightning.classifier.prompt_file import Prompt, learned, read_prompt, write_prompt
from smm_lightning.classifier.reprogrammed import ReprogrammedClassifier

__all__ = [
    "Pieces",
    "Prompt",
    "ReprogrammedClassifier",
    "TrustedParts",
    "learned",
    "read_prompt",
    "write_prompt",
]
