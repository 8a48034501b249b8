"""What a reader looks for first: is SMM the best, by how much, and what do its parts bring."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from smm_lightning.report.comparison import METHOD, OURS, compare_methods
from smm_lightning.report.tables import Table

_PATCH = "method.patch_size"


def answers(tables: Sequence[Table]) -> list[str]:
    """Sentences about all tables of the first metric that has something to say.

    Args:
        tables: of a report.
    """
    for metric in dict.fromkeys(table.metric.name for table in tables):
        alike = [table for table in tables if table.metric.name == metric]
        said = [(table, sentence) for table in alike for sentence in answer(table)]
        if said:
            return [f"{t.title}: {s}" if len(alike) > 1 else s for t, s in said]
    return []


def answer(table: Table) -> list[str]:
    """Sentences about a table of accuracies; none where it has no SMM to compare.

    Args:
        table: of one metric.
    """
    if not table.metric.highest:
        return []
    return [*_against_next_best(table), *_ablations(table), *_patch_sizes(table)]


def _against_next_best(table: Table) -> Iterator[str]:
    for shared, columns in _groups(table).items():
        ours = [column for column in columns if _method(table, column) == OURS]
        others = [column for column in columns if column not in ours]
        means = _means(table, [*ours, *others])
        if len(ours) != 1 or not others or not len(means):
            continue
        next_best = means[others].max(axis=1)
        margins = means[ours[0]] - next_best
        within = f" ({shared})" if shared else ""
        what = "datasets" if table.of_datasets else "rows"
        yield (
            f"SMM{within} is the best of {len(columns)} methods on {int((margins > 0).sum())} of "
            f"{len(margins)} {what}, and on average {margins.mean():+.1f} from the next best."
        )
        each = (
            f"{row} {margin:+.1f} ({_method(table, str(means.loc[row, others].idxmax()))})"
            for row, margin in margins.items()
        )
        yield f"SMM{within} minus the next best method: {', '.join(each)}."


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
