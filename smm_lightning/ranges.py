"""Ranges that arguments of several parts have; ``run/declared.py`` holds values against them."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

Count = Annotated[int, Ge(1), Le(1_000_000)]
Processes = Annotated[int, Ge(0), Le(1024)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]  # what NumPy and Lightning take
Fraction = Annotated[float, Ge(0), Lt(1)]
Rate = Annotated[float, Gt(0), Le(1e6)]  # of learning
Factor = Annotated[float, Gt(0), Le(1)]
# Short names of precisions, as Lightning has them, too.
PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}
Reads = Literal["logits", "features"]  # what a mapping takes of the network
ImageSize = Annotated[int, Ge(1), Le(4096)]  # pixels
