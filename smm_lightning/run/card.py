"""The protocol card: how a number was made, without which it compares with no other one.

A card holds texts and numbers by names, the same in ``result.json``, reports, dashboards and beside
a trained prompt.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_OF_PROTOCOL = ("protocol", "test set", "stopped by", "limits", "shots", "draw")
_COMPARABLE = (*_OF_PROTOCOL, "train images", "val images", "test images", "precision")
_LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "overfit_batches")
_CHECKSUM = 16  # digits
_MOST_SHOWN = 4  # values of a line that differs


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
            the images, and of the mapping ``refresh`` and ``reads``.
    """
    dataset, history = config["dataset"], outcome["history"]
    selected, images = outcome["best/selected_on"], outcome["images"]
    trained = len(history) if outcome["params/trainable"] else 0
    counted = sum(bool(row.get("mapping/passes")) for row in history)
    card: dict[str, Any] = {
        "protocol": config["protocol"]["name"],
        "test set": _watched(history),
        "selection": f"last epoch; best epoch by {selected}" if selected else "last epoch",
        "stopped by": ", ".join(_stoppers(config)) or None,
        "limits": _limits(config["trainer"]) or None,
        **_learned(outcome),
        **{f"{split} images": facts["images"] for split, facts in images.items()},
        **{f"{split} checksum": facts["digest"][:_CHECKSUM] for split, facts in images.items()},
        **({} if dataset["shots"] is None else _drawn(dataset)),
        "preprocessing": outcome["preprocessing"],
        "normalisation": outcome["normalisation"],
        "precision": precision_of(outcome),
        "temperature": _temperature(config, outcome),
        "network passes": f"{trained} to train and {counted} to count, 1 to predict",
    }
    return {name: value for name, value in card.items() if value is not None}


def _watched(history: Sequence[Mapping[str, float]]) -> str:
    """When the test was read, by what is known of the epochs."""
    watched = sum("test/acc" in row for row in history)
    if not watched:
        return "read after the training alone"
    return f"watched after {'every epoch' if watched == len(history) else 'some epochs'}"


def asks_for(split: str, config: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    """Fields that name a number of a split, such as ``test/loss``.

    Args:
        split: ``test``, ``val``.
        config: composed and resolved.
        names: of what decides something there, such as ``callbacks``.
    """
    texts = (text for name in names for text in _texts(name, config.get(name)))
    return {field: text for field, text in texts if text.startswith(f"{split}/")}


def _texts(field: str, node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, str):
        yield field, node
    elif isinstance(node, Mapping):
        for name, inner in node.items():
            yield from _texts(f"{field}.{name}", inner)
    elif isinstance(node, Sequence):
        for inner in node:
            yield from _texts(field, inner)


def _stoppers(config: Mapping[str, Any]) -> list[str]:
    """What callbacks that act on the training decide by."""
    from smm_lightning.run.identity import decisive_part  # OmegaConf, which prompt files do without

    acting = decisive_part(config).get("callbacks") or {}
    return [str(node["monitor"]) for node in acting.values() if node.get("monitor")]


def _limits(trainer: Mapping[str, Any]) -> str:
    """What leaves images out that the card counts."""
    return ", ".join(f"{name} {trainer[name]}" for name in _LIMITS if trainer.get(name))


def _learned(outcome: Mapping[str, Any]) -> dict[str, str]:
    """Which images each part was taken from; of what is there."""
    trained = {
        "prompt": outcome.get("params/pattern") or outcome.get("params/mask_generator"),
        "adapter": outcome.get("params/adapter"),
        "head" if outcome["reads"] == "features" else "mapping": outcome.get("params/mapping"),
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
    shared = [f"{name}: {shown_value(v[0])}" for name, v in values.items() if len(v) == 1]
    differ = [f"{name} ({_several(v)})" for name, v in values.items() if len(v) > 1]
    said = ["; ".join(shared)] * bool(shared)
    said += [f"differs: {', '.join(differ)}"] * bool(differ)
    return [in_a_line(line) for line in said]


def _several(values: Sequence[Any]) -> str:
    if len(values) > _MOST_SHOWN:
        return f"{len(values)} values"
    return " / ".join(map(shown_value, values))


def shown_value(value: Any) -> str:
    """Of a line of a card; a card may lack it."""
    if value is None:
        return "none"
    return in_a_line(f"{value:.4g}" if isinstance(value, float) else value)
