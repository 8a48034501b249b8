"""The protocol card: how a number was made, without which it compares with no other one.

A card holds texts and numbers by names, the same in ``result.json``, reports, dashboards and beside
a trained prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from smm_lightning.text import in_a_line

ProtocolName = Literal["strict", "published"]
Card = dict[str, str | int | float]
# The splits that may choose an epoch, a rate or a stop, the first that a run has before the others.
CHOOSERS: Mapping[ProtocolName, Sequence[str]] = {
    "strict": ("val",),
    "published": ("val", "test"),
}
# What must be equal for numbers to be averaged or compared: of several datasets, and of one.
_OF_PROTOCOL = ("protocol", "test set", "selection", "stopped by", "shots", "draw")
_COMPARABLE = (*_OF_PROTOCOL, "train images", "val images", "test images", "precision")
_CHOICES = ("dataset", "method", "backbone", "mapping", "adapter", "recipe")
_CHECKSUM = 16  # digits


def chooser(protocol: ProtocolName, evaluated: Sequence[str]) -> str | None:
    """The split whose accuracy chooses the best epoch.

    Args:
        protocol: of the run.
        evaluated: the splits that are evaluated after epochs.
    """
    return next((split for split in CHOOSERS[protocol] if split in evaluated), None)


def protocol_card(config: Mapping[str, Any], outcome: Mapping[str, Any]) -> Card:
    """The card of a run that has ended.

    Args:
        config: composed and resolved.
        outcome: what ``result.json`` is to hold, with ``preprocessing`` and ``normalisation`` of
            the images and ``refresh`` of the mapping.
    """
    dataset, history = config["dataset"], outcome["history"]
    selected, every = outcome["best/selected_on"], config["trainer"]["check_val_every_n_epoch"]
    epochs = "every epoch" if every == 1 else f"every {every} epochs"
    watched = f"watched {epochs}" if dataset["observe_test"] else "read once, after the training"
    counted = sum(bool(row.get("mapping/passes")) for row in history)
    images = outcome["images"]
    card: dict[str, Any] = {
        "protocol": config["protocol"]["name"],
        "test set": watched,
        "selection": f"last epoch; best epoch by {selected}" if selected else "last epoch",
        "stopped by": ", ".join(monitors(config)) or None,
        **_learned(outcome),
        **{f"{split} images": facts["images"] for split, facts in images.items()},
        **{f"{split} checksum": facts["digest"][:_CHECKSUM] for split, facts in images.items()},
        **({} if dataset["shots"] is None else _drawn(dataset)),
        "preprocessing": outcome["preprocessing"],
        "normalisation": outcome["normalisation"],
        "precision": precision_of(outcome),
        "temperature": _temperature(config, outcome),
        "network passes": f"{len(history)} to train and {counted} to count, 1 to predict",
    }
    return {name: value for name, value in card.items() if value is not None}


def monitors(config: Mapping[str, Any]) -> list[str]:
    """What callbacks decide by, such as ``val/loss`` of one that stops early."""
    nodes = (config.get("callbacks") or {}).values()
    asked = (node.get("monitor") for node in nodes if isinstance(node, Mapping))
    return [name for name in asked if isinstance(name, str)]


def _learned(outcome: Mapping[str, Any]) -> dict[str, str]:
    """Which images each part was taken from; of what is there."""
    trained = {
        "prompt": outcome.get("params/pattern") or outcome.get("params/mask_generator"),
        "adapter": outcome.get("params/adapter"),
        "mapping": outcome.get("params/mapping"),
    }
    learned = {f"{part} trained on": "train" for part, count in trained.items() if count}
    counted = {} if outcome["refresh"] == "never" else {"mapping counted on": "train"}
    return learned | counted


def _temperature(config: Mapping[str, Any], outcome: Mapping[str, Any]) -> str | float:
    value: float = outcome["temperature"]
    fitted = config["mapping"].get("temperature") == "auto"
    return f"{value:.4g}, fitted on train" if fitted else value


def _drawn(dataset: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", " "): dataset[name] for name in ("shots", "draw", "draw_seed")}


def precision_of(result: Mapping[str, Any]) -> str:
    """Of the training and, where it is another one, of tests and counts."""
    trained, tested = result["precision"], result.get("evaluation_precision")
    return f"{trained}, tested in {tested}" if tested not in (None, trained) else str(trained)


def comparable(card: Mapping[str, Any]) -> Card:
    """What must be equal for two numbers of a dataset to be averaged or compared."""
    return {name: card[name] for name in _COMPARABLE if name in card}


def unlike_protocols(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs and must not, also where the images are those of several datasets."""
    return [name for name in _OF_PROTOCOL if len({card.get(name) for card in cards}) > 1]


def lines(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """Cards in a few lines for people: what all share, and then what differs.

    Args:
        cards: of the runs behind a table.
    """
    names = list(dict.fromkeys(name for card in cards for name in card))
    values = {name: list(dict.fromkeys(card.get(name) for card in cards)) for name in names}
    shared = [f"{name}: {_shown(v[0])}" for name, v in values.items() if len(v) == 1]
    differ = [f"{name} ({_several(v)})" for name, v in values.items() if len(v) > 1]
    said = [*(["; ".join(shared)] if shared else []), *_headed("differs", differ)]
    return [in_a_line(line) for line in said]


def _headed(head: str, parts: Sequence[str]) -> list[str]:
    return [f"{head}: {', '.join(parts)}"] if parts else []


def _several(values: Sequence[Any], most: int = 4) -> str:
    shown = [_shown(value) for value in values if value is not None]
    return " / ".join(shown) if len(shown) <= most else f"{len(shown)} values"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def card_of(result: Mapping[str, Any]) -> Card:
    """How a prompt was trained and how good it is, for people who get it alone.

    Args:
        result: of its run.
    """
    config = result["config"]
    choices = {name: (config.get(name) or {}).get("name") for name in _CHOICES}
    card = {
        **choices,
        "test accuracy": result["test/acc_last"],
        "weights": "of the last epoch",
        "seed": result["seed"],
        **result["card"],
    }
    return {name: value for name, value in card.items() if value is not None}
