"""Of several values that were tried, those that are best on ``val``: the test decides nothing."""

import math
from collections import defaultdict
from collections.abc import Sequence

from smm_lightning.report.runs import Run
from smm_lightning.report.tables import Layout
from smm_lightning.text import in_a_line

_METRIC = "val/acc"


def chosen_on_val(runs: Sequence[Run], layout: Layout) -> tuple[list[Run], list[str]]:
    """Of each cell the runs whose tried values have the highest mean accuracy on ``val``.

    Args:
        runs: of a grid.
        layout: whose ``tried`` names the fields.

    Returns:
        Those runs and all missing ones, in the given order, and a line for each cell.
    """
    if not layout.tried:
        return list(runs), []
    cells: dict[tuple[str, ...], dict[tuple[str, ...], list[Run]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in runs:
        tried = tuple(str(run.value(field)) for field in layout.tried)
        cells[layout.cell(run)][tried].append(run)
    kept: set[int] = set()
    lines = []
    for candidates in cells.values():
        best = max(candidates, key=lambda values: _mean(candidates[values]))
        kept |= {id(run) for run in candidates[best]}
        if _mean(candidates[best]) > -math.inf and len(candidates) > 1:
            first = candidates[best][0]
            names = [in_a_line(first.value(name)) for name in (*layout.rows, *layout.columns)]
            values = ", ".join(f"{f} {v}" for f, v in zip(layout.tried, best, strict=True))
            lines.append(f"Chosen on val for {', '.join(names)}: {values}.")
    shown = [run for run in runs if id(run) in kept or run.result is None]
    return shown, lines


def _mean(runs: Sequence[Run]) -> float:
    """Over the seeds that are finished; without one nothing is chosen."""
    known = [run.result.get(_METRIC) for run in runs if run.result is not None]
    values = [float(value) for value in known if value is not None]
    return sum(values) / len(values) if values else -math.inf
