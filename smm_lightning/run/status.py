"""``smm status <experiment> [overrides]``: how the runs of a grid stand.

``all_tables`` stands for all grids of the paper, of which some have runs in common. Exit status 0
if all are done, 1 if not.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from smm_lightning.run.folder import STATES, State
from smm_lightning.run.grid import ALL_TABLES, Job, expand, paper_grids

_STYLES = {"done": "green", "running": "cyan", "failed": "red", "killed": "red"}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="list finished and pending runs, too (of one grid)"
    )
    parser.add_argument("experiment", help="a file of conf/experiment, or all_tables")
    parser.add_argument("overrides", nargs="*", help="as after ./multirun.sh <experiment>")
    options = parser.parse_intermixed_args()
    if options.experiment == ALL_TABLES:
        grids = ((name, expand(name, options.overrides)) for name in paper_grids())
        sys.exit(not print_grids(grids))
    jobs = expand(options.experiment, options.overrides)
    rows = jobs[0].tables.rows
    states = [(job, state_of(job, rows)) for job in jobs]
    print_states(states, everything=options.all)
    sys.exit(any(state.name != "done" for _, state in states))


def state_of(job: Job, rows: Mapping[str, Mapping[str, Any]]) -> State:
    """How a run stands; one that a table of finished grids has is done.

    Args:
        job: the run.
        rows: see :class:`Tables`.
    """
    state, row = job.run.state(), rows.get(job.run.key)
    if row is None or state.name != "pending":
        return state
    return State("done", f"stands in {row['recorded']}")


def print_states(states: list[tuple[Job, State]], *, everything: bool) -> None:
    """A line of counts, and a row for every run that is neither done nor pending.

    Args:
        states: runs and their states.
        everything: rows for all of them.
    """
    counts = Counter(state.name for _, state in states)
    print(f"{len(states)} runs: " + ", ".join(f"{counts[s]} {s}" for s in STATES if counts[s]))
    shown = [
        (job, state) for job, state in states if everything or state.name not in ("done", "pending")
    ]
    if not shown:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("state", "run", "since", "reason"):
        table.add_column(column, overflow="fold", no_wrap=column != "reason")
    for job, state in sorted(shown, key=lambda pair: STATES.index(pair[1].name)):
        style = _STYLES.get(state.name, "")
        table.add_row(
            state.name, job.run.path.name, _clock(state), escape(state.reason), style=style
        )
    console = Console()
    if not console.is_terminal:  # a log is read with its lines whole
        console = Console(width=240)
    console.print(table, highlight=False)


def print_grids(grids: Iterable[tuple[str, list[Job]]]) -> bool:
    """A line for each grid: its runs, how many of them grids above it have, and how many are done.

    Args:
        grids: names and jobs; each is printed before the next one is asked for.

    Returns:
        Whether all runs are done.
    """
    done: dict[str, bool] = {}
    width = 16  # of names
    print(f"{'grid':{width}}   runs  shared    done", flush=True)
    rows: Mapping[str, Any] | None = None
    for name, jobs in grids:
        rows = jobs[0].tables.rows if rows is None else rows
        shared = sum(job.run.key in done for job in jobs)
        done |= {job.run.key: state_of(job, rows).name == "done" for job in jobs}
        finished = sum(done[job.run.key] for job in jobs)
        print(f"{name:{width}}  {len(jobs):5}  {shared:6}  {finished:6}", flush=True)
    print(f"{'in all':{width}}  {len(done):5}          {sum(done.values()):6}")
    return all(done.values())


def _clock(state: State) -> str:
    return "" if state.since is None else time.strftime("%m-%d %H:%M", time.localtime(state.since))
