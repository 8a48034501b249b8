"""``smm figures <run, folder of runs, or experiment> [overrides]``: figures.

Of a run: pictures, mapping, confusion, curves. Of several: training, patch_size (which need results
only), confidence, loss_change, embedding (which need the checkpoints and the data).
Each is a PNG and a PDF, with the numbers that it shows beside it.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from smm_lightning.device import keep_freed_memory
from smm_lightning.errors import UserError, did_you_mean, problem
from smm_lightning.figures import of_group, of_results, of_run, pictures
from smm_lightning.figures.style import save, write_columns
from smm_lightning.figures.trained import Trained
from smm_lightning.report.__main__ import folder_of, grid_of, title_of
from smm_lightning.report.page import FIGURES_OF_RUN as OF_RUN
from smm_lightning.report.runs import Run, distinct, flattened, runs_below
from smm_lightning.run.result import read_result

OF_GROUP = ("training", "patch_size", "confidence", "loss_change", "embedding")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", help="folder of a run, folder of runs, or a file of conf/experiment"
    )
    parser.add_argument("overrides", nargs="*", help="as after ./multirun.sh <experiment>")
    parser.add_argument("--only", help="figures, separated by commas", default="")
    parser.add_argument(
        "--images", help="confidence: numbers of training images, such as 3,17", default=""
    )
    parser.add_argument("--limit", type=int, default=5000, help="training images (default 5000)")
    options = parser.parse_args()
    keep_freed_memory()
    only = [name for name in options.only.split(",") if name] or [*OF_RUN, *OF_GROUP]
    for name in only:
        if name not in OF_RUN + OF_GROUP:
            raise problem("--only", "unknown", name, did_you_mean(name, OF_RUN + OF_GROUP))
    if options.limit < 1:
        raise problem("--limit", "must be at least 1", options.limit)
    numbers = _numbers(options.images)
    place = Path(options.what)
    if (place / "result.json").is_file():
        figures_of_run(_run(place), only)
        return
    if place.is_dir():
        runs, folder = runs_below(place), folder_of(place, f"Runs in {place.name}")
    else:
        grid = grid_of(options.what, options.overrides)
        runs = [run for run in grid.runs if (run.folder / "result.json").is_file()]
        folder = folder_of(grid.root, title_of(options.what, options.overrides))
    if not runs:
        raise UserError(f"figures: no run of {options.what} is finished.")
    figures_of_group(runs, folder / "figures", only, numbers, options.limit)


def _numbers(text: str) -> list[int] | None:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise problem("--images", "must be numbers, separated by commas", text)
    return [int(word) for word in words] or None


def figures_of_run(run: Run, only: Sequence[str]) -> None:
    """Into the folder ``figures`` of the run."""
    folder = run.folder / "figures"
    if "curves" in only:
        _show(save(*_named(of_run.curves(run), folder / "curves")))
    if set(only) & {"pictures", "mapping", "confusion"}:
        _of_trained(Trained(run), only)


def figures_of_group(
    runs: Sequence[Run],
    folder: Path,
    only: Sequence[str],
    numbers: Sequence[int] | None,
    limit: int,
) -> None:
    """For every dataset, backbone and mapping: comparisons, and the pictures of one run a method.

    Args:
        runs: finished.
        folder: of the comparisons; figures of a run lie in its own folder.
        only: which.
        numbers: of training images for ``confidence``.
        limit: training images that take part.
    """
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[
            tuple(str(run.value(f"{g}.name")) for g in ("dataset", "backbone", "mapping"))
        ].append(run)
    for key, members in groups.items():
        end = "-".join([key[0], *(k for k, n in zip(key[1:], _differ(groups), strict=True) if n)])
        if "training" in only:
            _show(save(*_named(of_results.training(members), folder / f"training-{end}")))
        if (
            "patch_size" in only
            and len({run.value("method.patch_size") for run in members} - {None}) > 1
        ):
            _show(save(*_named(of_results.patch_size(members), folder / f"patch_size-{end}")))
        if not set(only) - {"training", "patch_size", "curves"}:
            continue
        trained = [Trained(run) for run in one_each(members)]
        if "confidence" in only:
            found = of_group.confidence(trained, numbers, limit)
            _show(save(*_named(found, folder / f"confidence-{end}")))
        if "loss_change" in only:
            figure, changes, summary = of_group.loss_change(trained, limit)
            _show(save(figure, folder / f"loss_change-{end}", changes))
            write_columns(folder / f"loss_change-{end}-summary.csv", summary)
        if "embedding" in only:
            figure, points, scores = of_group.embedding(trained, limit)
            _show(save(figure, folder / f"embedding-{end}", points))
            write_columns(folder / f"embedding-{end}-scores.csv", scores)
        for one in trained:
            _of_trained(one, only)


def one_each(runs: Sequence[Run]) -> list[Run]:
    """The run of the lowest seed of each method; of several patch sizes the paper's, 8."""
    found = []
    for method in distinct(run.value("method.name") for run in runs):
        own = [run for run in runs if run.value("method.name") == method]
        own.sort(
            key=lambda run: (run.value("method.patch_size") not in (None, 8), run.value("seed"))
        )
        found.append(own[0])
    return found


def _of_trained(trained: Trained, only: Sequence[str]) -> None:
    folder = trained.run.folder / "figures"
    for name, draw in (
        ("pictures", pictures.draw),
        ("mapping", of_run.mapping),
        ("confusion", of_run.confusion),
    ):
        if name in only:
            _show(save(*_named(draw(trained), folder / name)))


def _named(
    drawn: tuple[Figure, Mapping[str, Any]], path: Path
) -> tuple[Figure, Path, Mapping[str, Any]]:
    figure, data = drawn
    return figure, path, data


def _differ(groups: Iterable[tuple[str, ...]]) -> list[bool]:
    """Whether backbones and mappings differ, and so belong into the name of a figure."""
    return [len(set(names)) > 1 for names in list(zip(*groups, strict=True))[1:]]


def _run(folder: Path) -> Run:
    result = read_result(folder)
    if result is None:
        raise problem("figures", "the result of this run cannot be read", str(folder))
    return Run(folder, dict(flattened(result["config"])), result)


def _show(path: Path) -> None:
    print(path, flush=True)
