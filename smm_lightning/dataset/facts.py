"""What is known of a dataset before it is there."""

from dataclasses import dataclass

from smm_lightning.ranges import Count


@dataclass(frozen=True)
class Facts:
    """Numbers that are expected; ``smm prepare`` compares what it finds.

    Args:
        train: training images in the paper's Table 6.
        test: test images likewise.
        classes: likewise.
        citation: whom to cite.
    """

    train: Count
    test: Count
    classes: Count
    citation: str
