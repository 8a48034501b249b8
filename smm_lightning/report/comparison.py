"""SMM against each baseline, run by run: same dataset, same seed."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scipy.stats import t

from smm_lightning.report.tables import Key, Table

OURS = "smm"
_LEVEL = 0.95


@dataclass(frozen=True)
class Comparison:
    """Differences between two columns of a table, ours minus theirs.

    Attributes:
        ours: the column of SMM.
        theirs: the column of the baseline.
        mean: over the rows, each with the mean of its seeds.
        over_rows: 95 % interval if the rows (datasets) were drawn anew; ``None`` below two.
        over_seeds: 95 % interval if the seeds were drawn anew, for these rows; ``None`` below two.
        won: rows whose mean difference is above zero.
        rows: that both have.
        pairs: of runs.
    """

    ours: Key
    theirs: Key
    mean: float
    over_rows: tuple[float, float] | None
    over_seeds: tuple[float, float] | None
    won: int
    rows: int
    pairs: int


def comparisons(table: Table) -> list[Comparison]:
    """Every pair of columns that differs in the method alone, one of them being SMM."""
    if "method.name" not in table.column_fields or not table.metric.highest:
        return []
    place = table.column_fields.index("method.name")
    compared = []
    for ours in (c for c in table.columns if c[place] == OURS):
        for theirs in (c for c in table.columns if c[place] != OURS):
            # What follows a method's name may be a setting that the baseline does not have.
            alike = ours[:place] == theirs[:place] and theirs[place + 1 :] in (
                (),
                ours[place + 1 :],
            )
            differences = _differences(table, ours, theirs)
            if alike and differences:
                compared.append(_compare(ours, theirs, differences))
    return compared


def _differences(table: Table, ours: Key, theirs: Key) -> dict[Key, dict[Any, float]]:
    """By row and seed, in the unit shown, of runs that both columns have."""
    differences: dict[Key, dict[Any, float]] = {}
    for row in table.rows:
        if (row, ours) in table.cells and (row, theirs) in table.cells:
            mine, other = table.cells[row, ours].values, table.cells[row, theirs].values
            if both := mine.keys() & other.keys():
                differences[row] = {
                    seed: mine[seed] - other[seed] for seed in sorted(both, key=str)
                }
    return differences


def _compare(ours: Key, theirs: Key, differences: dict[Key, dict[Any, float]]) -> Comparison:
    of_rows = [statistics.fmean(by_seed.values()) for by_seed in differences.values()]
    by_seed: dict[Any, list[float]] = defaultdict(list)
    for row in differences.values():
        for seed, difference in row.items():
            by_seed[seed].append(difference)
    # A seed that misses a row would compare other rows: it takes no part.
    of_seeds = [statistics.fmean(v) for v in by_seed.values() if len(v) == len(differences)]
    return Comparison(
        ours,
        theirs,
        statistics.fmean(of_rows),
        _interval(of_rows),
        _interval(of_seeds),
        sum(difference > 0 for difference in of_rows),
        len(of_rows),
        sum(len(row) for row in differences.values()),
    )


def _interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Student's t interval of the mean."""
    if len(values) <= 1:
        return None
    mean, error = statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5
    half = float(t.ppf((1 + _LEVEL) / 2, len(values) - 1)) * error
    return mean - half, mean + half
