"""What a reader looks for first: is SMM the best, by how much, and what do its parts bring."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from smm_lightning.report.comparison import METHOD, OURS, compare_methods
from smm_lightning.report.tables import Table

_PATCH = "method.patch_size"


@dataclass(frozen=True)
class Margins:
    """Of SMM over the next best method, in rows of a table.

    Attributes:
        shared: by what the compared columns are the same, and those of other margins are not.
        methods: how many there are, SMM included.
        margins: by row, in points.
        next_best: names of methods by row.
    """

    shared: str
    methods: int
    margins: "pd.Series[float]"
    next_best: "pd.Series[str]"


def answer(tables: Sequence[Table]) -> list[str]:
    """Sentences about the first metric that has something to say; the first is the answer.

    Args:
        tables: of a report.
    """
    for metric in dict.fromkeys(table.metric.name for table in tables if table.metric.highest):
        alike = [table for table in tables if table.metric.name == metric]
        found = [margins for table in alike for margins in margins_of(table)]
        details = [
            f"{table.title}: {sentence}" if len(alike) > 1 else sentence
            for table in alike
            for sentence in (*_margins_by_row(table), *_ablations(table), *_patch_sizes(table))
        ]
        if found:
            what = "datasets" if alike[0].of_datasets and len(found) == 1 else "rows"
            return [_lead(found, what), *details]
        if details:
            return details
    return []


def _lead(found: Sequence[Margins], what: str) -> str:
    margins = pd.concat([one.margins for one in found])
    methods = "/".join(map(str, sorted({one.methods for one in found})))
    return (
        f"SMM is the best of {methods} methods on {int((margins > 0).sum())} of {len(margins)} "
        f"{what}, and on average {margins.mean():+.1f} from the next best."
    )


def margins_of(table: Table) -> Iterator[Margins]:
    """SMM against the next best, for every group of columns that differ in the method alone."""
    for shared, columns in _groups(table).items():
        ours = [column for column in columns if _method(table, column) == OURS]
        others = [column for column in columns if column not in ours]
        means = _means(table, [*ours, *others])
        if len(ours) == 1 and others and len(means):
            margins = means[ours[0]] - means[others].max(axis=1)
            names = means[others].idxmax(axis=1).map(lambda column: _method(table, column))
            yield Margins(shared, len(columns), margins, names)


def _margins_by_row(table: Table) -> Iterator[str]:
    for found in margins_of(table):
        pairs = zip(found.margins.items(), found.next_best, strict=True)
        each = ", ".join(f"{row} {margin:+.1f} ({name})" for (row, margin), name in pairs)
        within = f" ({found.shared})" if found.shared else ""
        yield f"SMM{within} minus the next best method: {each}."


def _ablations(table: Table) -> Iterator[str]:
    """Margins over single methods, where they are the same method without a part."""
    compared = [c for c in compare_methods(table) if c.ours == OURS and c.rows]
    parts = [c for c in compared if c.theirs in ("only_mask", "smm_single_channel")]
    if parts:
        margins = (f"{c.theirs} {c.mean:+.1f}" for c in compared)
        yield f"SMM minus what lacks a part of it, on average: {', '.join(margins)}."


def _patch_sizes(table: Table) -> Iterator[str]:
    fields = table.columns_by_field
    sizes = {f[_PATCH]: c for c, f in fields.items() if _PATCH in f and f.get(METHOD, "")}
    if not {"1", "4", "16"} <= sizes.keys():
        return
    means = _means(table, [sizes[size] for size in ("1", "4", "16")])
    if len(means):
        one, four, sixteen = (means[sizes[size]] for size in ("1", "4", "16"))
        yield (
            f"Patch sizes: from 1 to 4 the accuracy changes by {(four - one).mean():+.1f} on "
            f"average, between 4 and 16 by {(sixteen - four).abs().mean():.1f} in size."
        )


def _groups(table: Table) -> Mapping[str, list[str]]:
    """Columns by what they share beside the method; those of one setting alone are left out."""
    groups: dict[str, list[str]] = defaultdict(list)
    for column, fields in table.columns_by_field.items():
        if METHOD in fields:
            shared = (v for name, v in fields.items() if not name.startswith("method."))
            groups[", ".join(shared)].append(column)
    return groups


def _method(table: Table, column: str) -> str:
    return table.columns_by_field[column][METHOD]


def _means(table: Table, columns: list[str]) -> pd.DataFrame:
    """By row and column, of rows that are whole."""
    complete = table.cells[table.cells["missing"] == 0]
    means = complete["mean"].unstack("column", sort=False)
    if not set(columns) <= set(means):
        return pd.DataFrame(columns=columns)
    return means[columns].dropna()
