"""Visual reprogramming with sample-specific masks (Cai et al., ICML 2024).

Images flow one way: dataset, method (f_in), backbone (f_P, frozen), mapping (f_out). These four
import none of each other; ``classifier`` composes their objects, and ``training`` trains them.

The public interface is what ``__all__`` names, here and in ``backbone``, ``dataset``, ``mapping``,
``method`` and ``training``; the command ``smm``; and the fields of ``conf/``. It changes with the
second number of a version and a line in the changelog. Everything else may change at any time.
"""

__version__ = "0.2.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smm_lightning.backbone import Backbone, BackboneSpec
    from smm_lightning.classifier import ReprogrammedClassifier
    from smm_lightning.errors import UserError
    from smm_lightning.mapping import LabelMapping
    from smm_lightning.method import InputTransform
    from smm_lightning.training import Group, GroupedOptimizer, ReprogrammingModule, Training

__all__ = [
    "Backbone",
    "BackboneSpec",
    "Group",
    "GroupedOptimizer",
    "InputTransform",
    "LabelMapping",
    "ReprogrammedClassifier",
    "ReprogrammingModule",
    "Training",
    "UserError",
]

_PLACES = {
    "backbone": ("BackboneSpec", "Backbone"),
    "classifier": ("ReprogrammedClassifier",),
    "errors": ("UserError",),
    "mapping": ("LabelMapping",),
    "method": ("InputTransform",),
    "training": ("Group", "GroupedOptimizer", "ReprogrammingModule", "Training"),
}


def __getattr__(name: str) -> Any:
    """Load what needs torch only when it is asked for: the command line must answer at once."""
    for place, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{place}"), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
