"""Visual reprogramming with sample-specific masks (Cai et al., ICML 2024).

Images flow one way: dataset, method (f_in), backbone (f_P, frozen), mapping (f_out). These four
import none of each other; ``classifier`` composes their objects, and ``training`` trains them.
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smm_lightning.classifier import ReprogrammedClassifier

__all__ = ["ReprogrammedClassifier"]


def __getattr__(name: str) -> Any:
    """Load what needs torch only when it is asked for: the command line must answer at once."""
    if name == "ReprogrammedClassifier":
        from smm_lightning.classifier import ReprogrammedClassifier

        return ReprogrammedClassifier
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
