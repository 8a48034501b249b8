"""Classes of a dataset among those of a model, by their names."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from smm_lightning.errors import problem


def matched(
    names: Sequence[str], known: Sequence[str], same: Mapping[str, str] = MappingProxyType({})
) -> list[int]:
    """For each class of a dataset its number in a model.

    Args:
        names: of the dataset.
        known: of the model.
        same: the model's by the dataset's names, where these differ.

    Raises:
        UserError: If a class has none, or two have the same; both lists are shown.
    """
    hint = f"The dataset has {', '.join(names)}; the model has {', '.join(known)}."
    said = {}
    for name, other in same.items():
        place, number = _place(name, names), _place(other, known)
        if place is None:
            raise problem("--classes", "the dataset has no such class", name, hint)
        if number is None:
            raise problem("--classes", "the model has no such class", other, hint)
        said[place] = number
    found = [said.get(place, _place(name, known)) for place, name in enumerate(names)]
    if missing := [name for name, number in zip(names, found, strict=True) if number is None]:
        how = "Use --classes <the dataset's>=<the model's>,..., or leave out what it does not know."
        what = "the model has no such class"
        raise problem("classes", what, ", ".join(missing), f"{hint} {how}")
    if len(set(found)) < len(found):
        raise problem("classes", "two of the dataset are the same one of the model", hint=hint)
    return [number for number in found if number is not None]


def _place(name: str, names: Sequence[str]) -> int | None:
    """Of a class by its name, else by the one name that differs in case and separators alone."""
    if name in names:
        return list(names).index(name)
    alike = [place for place, other in enumerate(names) if _plain(other) == _plain(name)]
    return alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    """In one form of its Unicode characters: files of some systems have another."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFC", name)).casefold()


def pairs_of(given: Sequence[str]) -> dict[str, str]:
    """Pairs of ``--classes``.

    Raises:
        UserError: If one is no pair, or a class is named twice.
    """
    same: dict[str, str] = {}
    for word in (word for words in given for word in words.split(",")):
        name, *others = (part.strip() for part in word.split("="))
        if len(others) != 1 or not name or not others[0]:
            what = "must be <the dataset's>=<the model's>,..."
            raise problem("--classes", what, word)
        if name in same:
            raise problem("--classes", "names a class twice", name)
        same[name] = others[0]
    return same
