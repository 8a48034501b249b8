"""What a reader must know before trusting a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from smm_lightning.report.runs import Run, distinct
from smm_lightning.report.tables import Table
from smm_lightning.run.result import epochs_of


def notes_of(runs: Sequence[Run], tables: Sequence[Table]) -> list[str]:
    """Missing runs, unlike protocols, how the best epoch was chosen, what the runs ran on."""
    finished = [run.result for run in runs if run.result is not None]
    missing = len(runs) - len(finished)
    notes = [f"{len(finished)} of {len(runs)} runs are finished; {missing} are missing."]
    unlike = distinct(name for table in tables for name in table.unlike)
    if unlike:
        names = ", ".join(unlike)
        notes.append(f"Runs of the same name differ in {names}: they are not averaged, but apart.")
    chosen = distinct(result["best/selected_on"] for result in finished)
    if any(table.metric.name == "test/acc_best" for table in tables) and chosen:
        if "test" in chosen:
            notes.append("The best epoch is the best test epoch: optimistic, as in published code.")
        if len(chosen) > 1:
            notes.append(
                "MIXED: the best epoch was chosen on val in some runs, on test in others. Compare "
                "the last epochs instead."
            )
    lasts = distinct(epochs_of(result) for result in finished)
    notes.append(f"Epochs: {', '.join(map(str, sorted(lasts)))}.")
    recorded = [result["recorded"] for result in finished if "recorded" in result]
    notes += [f"Runs that stand in {n}: {recorded.count(n)}." for n in distinct(recorded)]
    for title, values in (
        ("Device", [result["device"] for result in finished]),
        ("Precision", [_precision(result) for result in finished]),
        ("PyTorch", [result["environment"]["versions"]["torch"] for result in finished]),
        ("Commit", [_commit(result["environment"]) for result in finished]),
    ):
        kinds = distinct(values)
        counted = [f"{kind} ({values.count(kind)} runs)" for kind in kinds]
        notes.append(f"{title}: {kinds[0] if len(kinds) == 1 else 'MIXED: ' + ', '.join(counted)}.")
    return notes if finished else notes[:1]


def _precision(result: Mapping[str, Any]) -> str:
    trained, tested = result["precision"], result.get("evaluation_precision")
    return f"{trained}, tested in {tested}" if tested not in (None, trained) else str(trained)


def _commit(environment: dict[str, object]) -> str:
    commit = str(environment.get("git_commit") or "unknown")[:10]
    return f"{commit}, changed since" if environment.get("git_dirty") else commit
