"""The runs that a report is about."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smm_lightning.errors import problem
from smm_lightning.result import read_result

# What a run is called by; every one of them has these.
NAMES = ("dataset.name", "backbone.name", "mapping.name", "method.name")
# Fields that say where or how a run ran, or that follow from its seed.
_NO_PROTOCOL = ("paths", "logger", "callbacks", "report", "force", "isolated", "threads")
_NO_PROTOCOL_FIELDS = {
    *("seed", "dataset.seed", "mapping.seed", "stall_minutes", "objective", "trainer.devices"),
    *("trainer.accelerator", "dataset.num_workers", "dataset.build_workers", "dataset.residency"),
    # Where the same files lie; an experiment's runs agree in everything else by their key.
    *(
        "dataset.banks",
        "dataset.source.root",
        "trainer.enable_progress_bar",
        "trainer.enable_model_summary",
    ),
}


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
        return self.values.get(field)

    def protocol(self) -> dict[str, Any]:
        """What must be equal for two results to be averaged, but for the seed: settings, data."""
        settings = {
            field: str(value)
            for field, value in self.values.items()
            if field.partition(".")[0] not in _NO_PROTOCOL and field not in _NO_PROTOCOL_FIELDS
        }
        images = (self.result or {}).get("data/images") or {}
        return {**settings, **{f"{split} images": count for split, count in images.items()}}


def runs_below(folder: Path) -> list[Run]:
    """All finished runs in a folder, in the order of their names.

    Raises:
        UserError: If there is none.
    """
    found = [
        Run(path.parent, dict(flattened(result["config"])), result)
        for path in sorted(folder.glob("*/result.json"))
        if (result := read_result(path.parent)) is not None
    ]
    if not found:
        cure = "Name a folder of runs, such as runs, or an experiment of conf/experiment."
        raise problem("report", "no finished run in this folder", str(folder), cure)
    return found


def flattened(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested configuration under their dotted names."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def distinct(values: Iterable[Any]) -> list[Any]:
    """Without repetitions, in the order of their first appearance."""
    return list(dict.fromkeys(values))
