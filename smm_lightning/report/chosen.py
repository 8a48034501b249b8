"""Of several values that were tried, those that are best on ``val``: the test decides nothing."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from smm_lightning.report.layout import Layout
from smm_lightning.report.runs import Run
from smm_lightning.text import in_a_line

_METRIC = "val/acc"
_NAMED = 4  # cells at most that took the usual values


def chosen_on_val(runs: Sequence[Run], layout: Layout) -> tuple[list[Run], list[str]]:
    """Of each cell the runs whose tried values have the highest mean accuracy on ``val``.

    Candidates are compared over the seeds that all of them have finished; of equal ones the first
    of the grid is taken, and the line says so. Where one has no accuracy on ``val``, nothing is
    chosen, and all stay.

    Args:
        runs: of a grid.
        layout: whose ``tried`` names the fields.

    Returns:
        Those runs and all missing ones, in the given order, and a line for all cells that took the
        same values, and one for those that are undecided.
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
    undecided: list[str] = []
    decided: dict[str, list[str]] = defaultdict(list)
    for candidates in cells.values():
        best = _best(candidates)
        chosen = [candidates[best[0]]] if best else [*candidates.values()]
        kept |= {id(run) for some in chosen for run in some}
        if len(candidates) == 1:
            continue
        first = next(iter(candidates.values()))[0]
        cell = ", ".join(in_a_line(first.value(name)) for name in (*layout.rows, *layout.columns))
        if not best:
            undecided.append(cell)
            continue
        values = ", ".join(
            f"{name} {value}" for name, value in zip(layout.tried, best[0], strict=True)
        )
        whole = all(run.result is not None for some in candidates.values() for run in some)
        rest = ("" if whole else ", while runs are missing") + (" (a tie)" if best[1:] else "")
        decided[f"{values}{rest}"].append(cell)
    lines = [f"Chosen on val for {named}: {values}." for named, values in _named(decided)]
    if undecided:
        others = f" and {len(undecided) - 1} more" if undecided[1:] else ""
        want = "for want of a seed that all have with an accuracy on val"
        lines.append(f"Nothing chosen on val yet for {undecided[0]}{others}, {want}.")
    return [run for run in runs if id(run) in kept or run.result is None], lines


def _named(decided: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Cells, and what they took; most of many cells go without their names."""
    ordered = sorted(decided.items(), key=lambda pair: len(pair[1]))
    named = [("; ".join(cells), values) for values, cells in ordered]
    if ordered and len(ordered[-1][1]) > _NAMED:
        values, cells = ordered[-1]
        named[-1] = f"{'the other' if ordered[1:] else 'all'} {len(cells)} cells", values
    return named


def _best(candidates: Mapping[tuple[str, ...], Sequence[Run]]) -> list[tuple[str, ...]]:
    """The values with the highest mean, several if they are equal; none without a common seed."""
    accuracies = {values: _by_seed(runs) for values, runs in candidates.items()}
    shared = set.intersection(*(set(of_seeds) for of_seeds in accuracies.values()))
    if not shared:
        return []
    # Accuracies are float32: what is closer than that is the same number of images.
    sums = {v: round(sum(of[seed] for seed in shared), 6) for v, of in accuracies.items()}
    highest = max(sums.values())
    return [values for values, total in sums.items() if total == highest]


def _by_seed(runs: Sequence[Run]) -> dict[str, float]:
    known = ((run, (run.result or {}).get(_METRIC)) for run in runs)
    finite = ((run, value) for run, value in known if value is not None and math.isfinite(value))
    return {str(run.value("seed")): float(value) for run, value in finite}
