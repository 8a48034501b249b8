"""Visual reprogramming with sample-specific masks (Cai et al., ICML 2024).

Data flows one way: dataset -> method (input transform) -> backbone (frozen) -> mapping -> module.
The four concept packages do not import each other; ``module`` composes their objects.
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
