"""``smm figures <run, folder of runs, experiment, or dataset=...> [overrides]``: figures.

Of a run, or of each method of a group of runs with one dataset, backbone and mapping; and of such
groups. With ``dataset=<name>`` and fields of a training, of its images before there is a run
(``batch``). Each is a PNG and a PDF, with the numbers that it shows beside it. --list names them
all; --only <package>.<module>:<function> draws one of your own.
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from smm_lightning.dataset import account
from smm_lightning.device import keep_freed_memory
from smm_lightning.errors import UserError, problem
from smm_lightning.figures.registry import Entry, Needs, figure_of, figures
from smm_lightning.figures.style import save
from smm_lightning.figures.trained import Group, TrainedRun
from smm_lightning.files import at, writing
from smm_lightning.inference.options import add_trust
from smm_lightning.report.__main__ import folder_of, grid_of, title_of
from smm_lightning.report.runs import NAMES, Run, differing, run_in, runs_below
from smm_lightning.run.card import comparable
from smm_lightning.run.config import composed
from smm_lightning.run.result import FILE
from smm_lightning.run.settings import require_configuration
from smm_lightning.training.assembly import build_data

_GROUPED = [name for name in NAMES if name != "method.name"]


def main() -> None:
    """The command."""
    options = _parser().parse_intermixed_args()
    if options.list:
        print("\n".join(f"{e.name:12} of a {e.of:6} {e.caption}" for e in figures().values()))
        return
    if options.what is None:
        raise UserError("figures: name a run, a folder of runs, or a file of conf/experiment.")
    keep_freed_memory()
    of_data = "=" in options.what and not at(options.what).exists()
    chosen = _chosen(options.only, of_data=of_data)
    if options.limit < 1:
        raise problem("--limit", "must be at least 1", options.limit)
    numbers = _numbers(options.images)
    if of_data:
        draw_data([options.what, *options.overrides], chosen)
        return
    place = at(options.what)
    if (place / FILE).is_file():
        with writing("figures", place):
            draw_run(TrainedRun(run_in(place), options.trust), chosen)
        return
    runs, folder = _finished_runs(options.what, options.overrides)
    drawn: list[Path] = []
    with writing("figures", folder):
        for name, members in groups_of(runs).items():
            group = Group(members, options.limit, numbers, options.trust)
            drawn += draw_group(group, folder / "figures", name, chosen)
    _say_left_out(runs, chosen, drawn)


def _finished_runs(what: str, overrides: Sequence[str]) -> tuple[list[Run], Path]:
    """Runs of a folder or an experiment, and where to put figures; says what is left out.

    Raises:
        UserError: If none is finished.
    """
    place = at(what)
    if place.is_dir():
        runs, broken = runs_below(place)
        folder = folder_of(place, f"Runs in {place.resolve().name}")
    else:
        grid = grid_of(what, overrides)
        runs, broken = [run for run in grid.runs if run.result], grid.broken
        folder = folder_of(grid.root, title_of(what, overrides))
    for line in broken:
        print(f"left out: {line}", file=sys.stderr)
    if not runs:
        raise UserError(f"figures: no run of {what} is finished.")
    return runs, folder


def _say_left_out(runs: Sequence[Run], chosen: Sequence[Entry], drawn: Sequence[Path]) -> None:
    """Runs of a table alone, where figures were asked for that read more of a run.

    Raises:
        UserError: If nothing was drawn for them.
    """
    count = sum(run.only_recorded for run in runs)
    if not count or all(entry.needs == "accuracies" for entry in chosen):
        return
    what = f"{count} of {len(runs)} runs stand in a table alone, where most figures find too little"
    hint = "paths.results=null trains them here."
    if not drawn:
        raise UserError(f"figures: {what}. {hint}")
    print(f"left out: {what}. {hint}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = "folder of a run, folder of runs, a file of conf/experiment, or dataset=<name>"
    parser.add_argument("what", nargs="?", help=what)
    parser.add_argument("overrides", nargs="*", help="as after ./multirun.sh <experiment>")
    parser.add_argument("--list", action="store_true", help="name all figures")
    parser.add_argument("--only", help="figures, separated by commas", default="")
    images = "confidence: numbers of training images, such as 3,17"
    parser.add_argument("--images", help=images, default="")
    add_trust(parser)
    parser.add_argument("--limit", type=int, default=5000, help="training images (default 5000)")
    return parser


def _chosen(only: str, *, of_data: bool) -> list[Entry]:
    """The figures that were asked for, by default all that can be drawn.

    Raises:
        UserError: If one is drawn of something else.
    """
    names = [name for name in only.split(",") if name]
    chosen = [figure_of(name) for name in names]
    if unfit := [entry.name for entry in chosen if (entry.of == "data") != of_data]:
        what = "is drawn of runs" if of_data else "is drawn before there is a run"
        raise problem("--only", what, unfit[0], "" if of_data else "Use dataset=<name>.")
    return chosen or list(figures().values())


def _numbers(text: str) -> list[int] | None:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise problem("--images", "must be numbers, separated by commas", text)
    return [int(word) for word in words] or None


def groups_of(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs with one dataset, backbone, mapping, adapter and card, by names that tell them apart."""
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    names = differing([comparable(run.card) for run in runs])
    for run in runs:
        made = (run.card.get(name, "") for name in names)  # what was made in another way is apart
        groups[tuple(str(v) for v in (*map(run.value, _GROUPED), *made))].append(run)
    # What follows the dataset belongs into the name of a figure where it differs within one.
    kept = [0]
    for place in range(1, len(_GROUPED) + len(names)):
        if len(_of(groups, [*kept, place])) > len(_of(groups, kept)):
            kept.append(place)
    return {
        "-".join(re.sub(r"[^\w.]+", "_", key[place]) for place in kept if key[place]): members
        for key, members in groups.items()
    }


def _of(groups: Iterable[tuple[str, ...]], places: Sequence[int]) -> set[tuple[str, ...]]:
    return {tuple(key[place] for place in places) for key in groups}


def draw_run(trained: TrainedRun, chosen: Sequence[Entry]) -> list[Path]:
    """Figures of a run, into its folder ``figures``, and their files."""
    folder, files = trained.run.folder / "figures", []
    for entry in sorted(chosen, key=lambda entry: get_args(Needs).index(entry.needs)):
        if entry.of == "run" and (drawn := entry.draw(trained)) is not None:
            files.append(save(drawn, folder / entry.name, entry.caption, [trained.run.key]))
            print(files[-1], flush=True)
    return files


def draw_group(group: Group, folder: Path, name: str, chosen: Sequence[Entry]) -> list[Path]:
    """Figures that compare the methods, and those of one run of each method.

    Args:
        group: the runs.
        folder: of the comparisons.
        name: of the group, in the names of files.
        chosen: which figures.

    Returns:
        Their files.
    """
    files: list[Path] = []
    with_folders = replace(group, runs=[run for run in group.runs if not run.only_recorded])
    # Where weights or images are not there, what needs none of them is drawn all the same.
    for needs in get_args(Needs):
        shown = group if needs == "accuracies" else with_folders
        entries = [entry for entry in chosen if entry.needs == needs and shown.runs]
        keys = [run.key for run in shown.runs]
        for entry in entries:
            if entry.of == "group" and (drawn := entry.draw(shown)) is not None:
                place = folder / f"{entry.name}-{name}"
                files.append(save(drawn, place, entry.caption, keys))
                print(files[-1], flush=True)
        for trained in with_folders.trained:
            files += draw_run(trained, entries)
    return files


def draw_data(overrides: Sequence[str], chosen: Sequence[Entry]) -> None:
    """Figures of the images of a training, into ``<paths.root>/figures``.

    Args:
        overrides: as of ``smm train``.
        chosen: which figures.
    """
    config = composed(overrides)
    require_configuration(config)
    config.dataset.batch_size = 1  # there is no step that a few images would be too few for
    data = build_data(config.backbone, config.method, config.dataset)
    data.setup()
    print("\n".join(account.lines(data.images, data.overlaps)))
    folder = at(config.paths.root) / "figures"
    with writing("figures", folder):
        for entry in chosen:
            if entry.of == "data" and (drawn := entry.draw(data)) is not None:
                name = f"{entry.name}-{config.dataset.name}"
                print(save(drawn, folder / name, entry.caption), flush=True)
