"""Which figures there are: functions with their names, kinds and captions."""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from matplotlib.figure import Figure

from smm_lightning.errors import did_you_mean, problem

Kind = Literal["run", "group", "data"]
# What a figure reads of a run: of its row in a table, of its result, or checkpoint and images, too.
Needs = Literal["accuracies", "history", "weights"]
_NO_FIGURES = ("__main__", "registry", "style", "trained")  # modules beside those of figures


@dataclass(frozen=True)
class Drawn:
    """A figure with the numbers that it shows.

    Attributes:
        figure: to be saved.
        data: what it shows, by name: columns of equal length, or arrays.
        tables: further columns, by the ending of their file's name.
        runs: keys of the runs that are shown, where they are not all that it was drawn for.
    """

    figure: Figure
    data: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    runs: Sequence[str] | None = None


# Of a :class:`TrainedRun`, a :class:`Group` or an :class:`ImageDataModule`; ``None`` where there is
# nothing to show.
FigureFunction = Callable[[Any], Drawn | None]


@dataclass(frozen=True)
class Entry:
    """What is known of a figure.

    Attributes:
        name: of its files, and of the option ``--only``.
        of: what it is drawn for.
        caption: for people.
        draw: the function.
        needs: what it reads; those that need less are drawn first.
    """

    name: str
    of: Kind
    caption: str
    draw: FigureFunction
    needs: Needs = "weights"


_ENTRIES: dict[str, Entry] = {}


def figure(
    name: str, *, of: Kind, caption: str, needs: Needs = "weights"
) -> Callable[[FigureFunction], FigureFunction]:
    """Make a function a figure.

    Args:
        name: of its files.
        of: ``run``: it takes a :class:`TrainedRun`; ``group``: a :class:`Group`; ``data``: an
            :class:`ImageDataModule`, which needs no run.
        caption: what it shows, in a sentence.
        needs: ``accuracies`` for one that a row under ``docs/results`` is enough for: it is drawn
            of runs without a folder, too; ``history`` for one that reads ``result.json`` only.
    """

    def register(draw: FigureFunction) -> FigureFunction:
        _ENTRIES[name] = Entry(name, of, caption, draw, needs)
        return draw

    return register


def figures() -> dict[str, Entry]:
    """All figures of this package, by name."""
    package = import_module("smm_lightning.figures")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in _NO_FIGURES:
            import_module(f"{package.__name__}.{module.name}")
    return _ENTRIES


def figure_of(name: str) -> Entry:
    """A figure by its name, or by ``<package>.<module>:<function>`` from outside.

    Raises:
        UserError: If there is none.
    """
    module, colon, function = name.partition(":")
    if not colon:
        known = figures()
        if name not in known:
            raise problem("--only", "unknown", name, did_you_mean(name, known))
        return known[name]
    try:
        draw = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise problem("--only", f"cannot be loaded ({error})", name) from error
    for entry in _ENTRIES.values():
        if entry.draw is draw:
            return entry
    raise problem("--only", "is no figure", name, "Put @figure(...) above the function.")
