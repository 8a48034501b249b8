"""What a reader must know before trusting a table."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from smm_lightning.report.runs import Run, distinct
from smm_lightning.report.tables import Table
from smm_lightning.run.card import precision_of
from smm_lightning.run.result import epochs_of


def notes_of(runs: Sequence[Run], tables: Sequence[Table]) -> list[str]:
    """Missing runs, unlike protocols, what choosing by the test gains, what the runs ran on."""
    finished = [run.result for run in runs if run.result is not None]
    missing = len(runs) - len(finished)
    notes = [f"{len(finished)} of {len(runs)} runs are finished; {missing} are missing."]
    unlike = distinct(name for table in tables for name in table.unlike)
    if unlike:
        names = ", ".join(unlike)
        notes.append(f"Runs of the same name differ in {names}: they are not averaged, but apart.")
    if mixed := distinct(name for table in tables for name in table.mixed):
        names = ", ".join(mixed)
        notes.append(f"MIXED: cards of different rows differ in {names}: no average over rows.")
    beside = (names for table in tables for names in table.cells["paper_of"] if names)
    if theirs := distinct(name for names in beside for name in names.split(", ")):
        names = ", ".join(theirs)
        notes.append(f"The paper's numbers are of {names}: another network or other images.")
    notes += _optimism(runs)
    lasts = distinct(epochs_of(result) for result in finished)
    notes.append(f"Epochs: {', '.join(map(str, sorted(lasts)))}.")
    recorded = [result["recorded"] for result in finished if "recorded" in result]
    notes += [f"Runs that stand in {n}: {recorded.count(n)}." for n in distinct(recorded)]
    for title, values in (
        ("Device", [result["device"] for result in finished]),
        ("Precision", [precision_of(result) for result in finished]),
        ("PyTorch", [result["environment"]["versions"]["torch"] for result in finished]),
        ("Commit", [_commit(result["environment"]) for result in finished]),
    ):
        kinds = distinct(values)
        counted = [f"{kind} ({values.count(kind)} runs)" for kind in kinds]
        notes.append(f"{title}: {kinds[0] if len(kinds) == 1 else 'MIXED: ' + ', '.join(counted)}.")
    return notes if finished else notes[:1]


def _optimism(runs: Sequence[Run]) -> list[str]:
    """By how much the best test epoch is above what nobody chose by the test."""
    honest = {"the last epoch": "test/acc_last", "the best epoch on val": "test/acc_best_val"}
    said = []
    for what, name in honest.items():
        gaps: dict[str, list[float]] = defaultdict(list)
        for run in runs:
            chosen, other = ((run.result or {}).get(n) for n in ("test/acc_best_test", name))
            if chosen is not None and other is not None:
                gaps[run.method].append(100 * (chosen - other))
        every = [gap for of_method in gaps.values() for gap in of_method]
        each = ", ".join(f"{method} {fmean(of):+.1f}" for method, of in gaps.items())
        if every:
            by_method = f": {each}" if len(gaps) > 1 else ""
            said.append(f"{fmean(every):+.1f} points over {what} ({len(every)} runs{by_method})")
    head = "Optimism of the best epoch on test, which chose it"
    return [f"{head}: {', '.join(said)}."] if said else []


def _commit(environment: dict[str, object]) -> str:
    commit = str(environment.get("git_commit") or "unknown")[:10]
    return f"{commit}, changed since" if environment.get("git_dirty") else commit
