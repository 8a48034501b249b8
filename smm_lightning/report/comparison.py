"""SMM against each baseline, run by run: same dataset, same seed."""

from dataclasses import dataclass

import pandas as pd
from scipy.special import stdtrit

from smm_lightning.report.tables import Table

OURS = "smm"
METHOD = "method.name"
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

    ours: str
    theirs: str
    mean: float
    over_rows: tuple[float, float] | None
    over_seeds: tuple[float, float] | None
    won: int
    rows: int
    pairs: int


def compare_methods(table: Table) -> list[Comparison]:
    """Every pair of columns that differs in the method alone, one of them being SMM."""
    fields = table.columns_by_field
    if (
        table.mixed
        or not table.metric.highest
        or any(METHOD not in names for names in fields.values())
    ):
        return []
    values = table.runs.pivot_table("value", ["row", "seed"], "column", sort=False)
    compared = []
    for ours in (column for column in values if fields[column][METHOD] == OURS):
        for theirs in (column for column in values if fields[column][METHOD] != OURS):
            differences = (values[ours] - values[theirs]).dropna()
            # A baseline may lack a setting of SMM's, such as its patch size.
            shared = fields[ours].items() - {(METHOD, OURS)}
            alike = fields[theirs].items() - {(METHOD, fields[theirs][METHOD])} <= shared
            if alike and len(differences):
                compared.append(_compare(ours, theirs, differences))
    return compared


def _compare(ours: str, theirs: str, differences: "pd.Series[float]") -> Comparison:
    """Of differences by row and seed."""
    of_rows = differences.groupby("row", sort=False).mean()
    # A seed that misses a row would compare other rows: it takes no part.
    of_seeds = differences.unstack("row").dropna().mean(axis=1)
    return Comparison(
        ours,
        theirs,
        float(of_rows.mean()),
        _interval(of_rows),
        _interval(of_seeds),
        int((of_rows > 0).sum()),
        len(of_rows),
        len(differences),
    )


def _interval(values: "pd.Series[float]") -> tuple[float, float] | None:
    """Student's t interval of the mean."""
    if len(values) <= 1:
        return None
    mean, error = float(values.mean()), float(values.std()) / len(values) ** 0.5
    half = float(stdtrit(len(values) - 1, (1 + _LEVEL) / 2)) * error
    return mean - half, mean + half
