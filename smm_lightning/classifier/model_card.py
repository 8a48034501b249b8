"""What the model card of a trained classifier says."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smm_lightning.text import as_markdown, in_a_line

if TYPE_CHECKING:
    from smm_lightning.classifier.reprogrammed import ReprogrammedClassifier

TEMPLATE = Path(__file__).with_name("model_card.md").read_text(encoding="utf-8")


def card_values(classifier: "ReprogrammedClassifier", more: Mapping[str, object]) -> dict[str, Any]:
    """For :data:`TEMPLATE`: classes, frozen network and its checksum, how it was trained, accuracy.

    Args:
        classifier: that a file can hold.
        more: further lines of the card, by their names.
    """
    kinds = {name: dict(classifier.nodes.get(name) or {}) for name in ("backbone", "method")}
    classes = {k: str(node.get("_target_")).rpartition(".")[2] for k, node in kinds.items()}
    chosen = [kinds["backbone"].get(name) for name in ("model", "depth")]
    network = " ".join([classes["backbone"], *(str(one) for one in chosen if one)])
    lines = {**classifier.prompt.card, **more}
    return {
        "classes": [as_markdown(name) for name in classifier.class_names],
        "network": as_markdown(network),
        "method": as_markdown(classes["method"]),
        "own": classes["backbone"] == "OwnNetwork",
        "image_size": classifier.backbone.image_size,
        "input_size": classifier.input_size,
        "sha256": classifier.backbone.sha256,
        "lines": {as_markdown(_shown(k)): as_markdown(_shown(v)) for k, v in lines.items()},
    }


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else in_a_line(value)
