"""What a reader looks for first: is SMM the best, by how much, and what do its parts bring."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from smm_lightning.report.comparison import METHOD, OURS
from smm_lightning.report.tables import Table

_PATCH = "method.patch_size"
_ADAPTER = "adapter.name"
_PARTS = ("full", "only_mask", "smm_single_channel")  # SMM without its mask, pattern, colours


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
    fair = [table for table in tables if table.metric.highest and not table.mixed]
    for metric in dict.fromkeys(table.metric.name for table in fair):
        alike = [table for table in fair if table.metric.name == metric]
        details = [
            f"{table.title}: {sentence}" if len(alike) > 1 else sentence
            for table in alike
            for sentence in (*_margins_by_row(table), *_ablations(table), *_patch_sizes(table))
        ]
        groups: dict[str, list[Margins]] = defaultdict(list)
        for table in alike:
            for margins in margins_of(table):
                groups[margins.shared].append(margins)
        what = "datasets" if alike[0].of_datasets and len(alike) == 1 else "rows"
        if groups or details:
            return [*(_lead(found, what) for found in groups.values()), *details]
    return []


def _lead(found: Sequence[Margins], what: str) -> str:
    margins = pd.concat([one.margins for one in found])
    methods = "/".join(map(str, sorted({one.methods for one in found})))
    within = f" ({found[0].shared})" if found[0].shared else ""
    won = int((margins > 0).sum())
    return (
        f"SMM{within} is the best of {methods} methods on {won} of {len(margins)} {what}, and on "
        f"average {margins.mean():+.1f} from the next best."
    )


def margins_of(table: Table) -> Iterator[Margins]:
    """SMM against the next best, for every group of columns to compare."""
    for shared, columns in _groups(table).items():
        ours = [c for c in columns if _method(table, c) == OURS and not _adapter(table, c)]
        others = [column for column in columns if _method(table, column) != OURS]
        means = _means(table, [*ours, *others])
        if len(ours) == 1 and others and len(means):
            margins = means[ours[0]] - means[others].max(axis=1)
            names = means[others].idxmax(axis=1).map(lambda column: _short(table, column))
            yield Margins(shared, 1 + len(others), margins, names)


def _margins_by_row(table: Table) -> Iterator[str]:
    for found in margins_of(table):
        pairs = zip(found.margins.items(), found.next_best, strict=True)
        each = ", ".join(f"{row} {margin:+.1f} ({name})" for (row, margin), name in pairs)
        within = f" ({found.shared})" if found.shared else ""
        yield f"SMM{within} minus the next best method: {each}."


def _ablations(table: Table) -> Iterator[str]:
    """Margins over the same method without a part, over rows that have all of them."""
    for shared, columns in _groups(table).items():
        by_method = {_method(table, c): c for c in columns if not _adapter(table, c)}
        parts = {name: by_method[name] for name in _PARTS if name in by_method}
        if OURS not in by_method or not parts.keys() - {"full"}:
            continue
        means = _means(table, [by_method[OURS], *parts.values()])
        if len(means):
            margins = ((n, (means[by_method[OURS]] - means[c]).mean()) for n, c in parts.items())
            within = f" ({shared})" if shared else ""
            each = ", ".join(f"{name} {margin:+.1f}" for name, margin in margins)
            yield f"SMM{within} minus what lacks a part of it, on average: {each}."


def _patch_sizes(table: Table) -> Iterator[str]:
    for shared, columns in _groups(table).items():
        of_smm = (c for c in columns if _method(table, c) == OURS and not _adapter(table, c))
        sizes = {table.columns_by_field[c].get(_PATCH): c for c in of_smm}
        if not {"1", "4", "16"} <= sizes.keys():
            continue
        means = _means(table, [sizes[size] for size in ("1", "4", "16")])
        if len(means):
            one, four, sixteen = (means[sizes[size]] for size in ("1", "4", "16"))
            within = f" ({shared})" if shared else ""
            yield (
                f"Patch sizes{within}: from 1 to 4 the accuracy changes by "
                f"{(four - one).mean():+.1f} on average, between 4 and 16 by "
                f"{(sixteen - four).abs().mean():.1f} in size."
            )


def _groups(table: Table) -> Mapping[str, list[str]]:
    """Columns by what they share beside method and adapter, which are what is compared."""
    groups: dict[str, list[str]] = defaultdict(list)
    for column, fields in table.columns_by_field.items():
        if METHOD in fields:
            compared = ("method.", "adapter.")
            shared = (v for name, v in fields.items() if not name.startswith(compared))
            groups[", ".join(shared)].append(column)
    return groups


def _adapter(table: Table, column: str) -> str:
    """Its name; empty where there is none."""
    name = table.columns_by_field[column].get(_ADAPTER, "none")
    return "" if name == "none" else name


def _short(table: Table, column: str) -> str:
    """Method and adapter of a column, of which one may be none."""
    method, adapter = _method(table, column), _adapter(table, column)
    return f"{method} with {adapter}" if adapter and method != "none" else adapter or method


def _method(table: Table, column: str) -> str:
    return table.columns_by_field[column][METHOD]


def _means(table: Table, columns: list[str]) -> pd.DataFrame:
    """By row and column, of rows that are whole."""
    complete = table.cells[table.cells["missing"] == 0]
    means = complete["mean"].unstack("column", sort=False)
    if not set(columns) <= set(means):
        return pd.DataFrame(columns=columns)
    return means[columns].dropna()
