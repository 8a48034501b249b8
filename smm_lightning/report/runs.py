"""The runs that a report is about."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smm_lightning.errors import Problems
from smm_lightning.run.card import comparable
from smm_lightning.run.declared import check_values
from smm_lightning.run.identity import decisive_part
from smm_lightning.run.look import Look, look_of_name
from smm_lightning.run.result import FILE, load_result
from smm_lightning.text import in_a_line

# What a run is called by; every one of them has these.
NAMES = ("dataset.name", "backbone.name", "mapping.name", "method.name", "adapter.name")
_DEFAULTS = {"adapter.name": "none"}  # of what runs of older versions do not say
# Of what decides about a result: the seed, what follows from it, and where the same files lie.
_NO_PROTOCOL = (
    *("seed", "dataset.seed", "dataset.draw_seed", "mapping.seed", "adapter.seed"),
    "protocol",  # which the card says of every run
    "dataset.source.root",
)


@dataclass(frozen=True)
class Run:
    """A run, finished or missing.

    Attributes:
        folder: where it lies.
        values: of its configuration, by dotted names.
        result: content of ``result.json``, or ``None`` if it is not finished.
    """

    folder: Path
    values: Mapping[str, Any]
    result: dict[str, Any] | None

    def value(self, field: str) -> Any:
        """Of a field of the configuration; ``None`` where this run has no such field."""
        return self.values.get(field, _DEFAULTS.get(field))

    @property
    def finished(self) -> dict[str, Any]:
        """The result of a run that is known to be finished."""
        assert self.result is not None
        return self.result

    @property
    def key(self) -> str:
        """Of a finished run."""
        return in_a_line(self.finished["run_key"])

    @property
    def only_recorded(self) -> bool:
        """Whether its result stands in a table alone: no folder, no history, no weights."""
        return "recorded" in self.finished

    @property
    def method(self) -> str:
        """Its name."""
        return str(self.value("method.name"))

    @property
    def look(self) -> Look:
        """Of its method; runs of older versions do not say it, and strangers' say anything."""
        given = {name: self.value(f"method.look.{name}") for name in Look.__dataclass_fields__}
        check_values(Look, given, "method.look", problems := Problems())
        return look_of_name(self.method) if problems.lines else Look(**given)

    @property
    def title(self) -> str:
        """Dataset, method, recipe and seed, for the head of a figure."""
        names = [self.value("dataset.name"), self.value("method.name")]
        recipe, seed = self.value("recipe.name"), self.value("seed")
        return in_a_line(
            ", ".join([*map(str, names), *([f"recipe {recipe}"] if recipe else []), f"seed {seed}"])
        )

    @property
    def card(self) -> dict[str, Any]:
        """Of a finished run; see :mod:`run.card`."""
        return (self.result or {}).get("card") or {}

    def protocol(self) -> dict[str, Any]:
        """What must be equal for two results to be averaged, but for the seed: card, settings."""
        result = self.result or {}
        known = result.get("identity") or decisive_part(result.get("config") or {})
        settings = {
            field: str(value) for field, value in flattened(known) if field not in _NO_PROTOCOL
        }
        if settings.get("ckpt_path", "None") != "None":
            settings["ckpt_path"] = "a checkpoint"  # another one for each seed
        # A few-shot draw is another one for each seed.
        drawn = ("train checksum", "val checksum") if "shots" in self.card else ()
        checksums = {
            name: str(value)[:8]
            for name, value in self.card.items()
            if name.endswith(" checksum") and name not in drawn
        }
        return {**comparable(self.card), **settings, **checksums}


def run_in(folder: Path) -> Run:
    """A finished run.

    Raises:
        UserError: If there is no result, or none that can be read.
    """
    result = load_result(folder)
    return Run(folder, dict(flattened(result["config"])), result)


def runs_below(folder: Path) -> tuple[list[Run], list[str]]:
    """All finished runs in a folder, in the order of their names, and what is wrong with others.

    A run that lies there twice counts once: a copy is no further seed.

    Raises:
        UserError: If there is none.
    """
    found: dict[str, Run] = {}
    problems = Problems()
    for path in sorted(folder.glob(f"*/{FILE}")):
        with problems.caught():
            run = run_in(path.parent)
            first = found.setdefault(run.key, run).folder
            problems.require(first == run.folder, str(run.folder), f"is the same run as {first}")
    runs = list(found.values())
    if not runs:
        hint = "Name a folder of runs, such as runs, or an experiment of conf/experiment."
        problems.add("report", "no finished run in this folder", str(folder), hint)
        problems.raise_if_any()
    return runs, problems.lines


def flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested configuration under their dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def differing(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names by which all of them are told apart, without what follows from these.

    Args:
        protocols: facts of runs, by name.
    """
    kept: list[str] = []
    for name in distinct(name for protocol in protocols for name in protocol):
        by_kept = {tuple(one.get(n) for n in kept) for one in protocols}
        with_name = {tuple(one.get(n) for n in (*kept, name)) for one in protocols}
        if len(with_name) > len(by_kept):
            kept.append(name)
    return kept


def distinct(values: Iterable[Any]) -> list[Any]:
    """Without repetitions, in the order of their first appearance."""
    return list(dict.fromkeys(values))
