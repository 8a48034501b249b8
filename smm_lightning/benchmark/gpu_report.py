"""``smm benchmark --gpu-report``: everything that there is to measure on a card, in one command.

For each network the frozen network alone, our steps and epochs, the share of the card's arithmetic
and bandwidth and, with ``--peer``, the published code; then memory against micro-batches, and two
runs on one card. On a CPU the same code runs at a size that shows that it works.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from smm_lightning.benchmark.measure import middle
from smm_lightning.benchmark.report import lines

Values = dict[str, Any]
Measure = Callable[[str, Values], Values]  # of a part, in a process of its own
# With enough images for some fifty steps an epoch.
_NETWORKS: tuple[Values, ...] = (
    {"backbone": "resnet18", "batch": 256, "train_images": 12_800, "test_images": 2_560},
    {"backbone": "resnet50", "batch": 256, "train_images": 12_800, "test_images": 2_560},
    {"backbone": "vit_b32", "batch": 64, "train_images": 3_200, "test_images": 640},
    {"backbone": "efficientnet_lite0", "size": 128, "train_images": 1_600, "test_images": 320},
)
_WITH_PEER = "resnet18"  # that the published code has at the same size and width
_SMALL: Values = {"backbone": "tiny", "batch": 8, "train_images": 24, "test_images": 8, "steps": 2}
_PARTS_OF_BATCH = (1, 4, 16)


def settings_on(accelerator: str) -> Sequence[Values]:
    """What differs from the settings of the command, a measurement each.

    Args:
        accelerator: that is measured.
    """
    return _NETWORKS if accelerator == "cuda" else (_SMALL,)


def gpu_report(
    setting: Values,
    options: argparse.Namespace,
    measure_all: Callable[[Values, argparse.Namespace], Values],
    measure: Measure,
) -> Iterator[tuple[str, Values]]:
    """Markdown of each section, and what it was made of.

    Args:
        setting: of the command.
        options: likewise.
        measure_all: of a setting, in turns.
        measure: a part of it.
    """
    for changed in settings_on(setting["accelerator"]):
        peer = setting["peer"] if changed["backbone"] == _WITH_PEER else None
        measured = measure_all({**setting, "peer": peer, **changed}, options)
        yield _section("\n".join(lines({**measured, "command": "part of this report"}))), measured
    first = {**setting, "peer": None, **settings_on(setting["accelerator"])[0]}
    yield _micro_batches(first, options.repetitions, measure)
    yield _two_at_a_time(first, options.repetitions, measure)


def _section(text: str) -> str:
    head, _, rest = text.partition("\n")
    return f"## {head}\n\n{rest}\n"


def _micro_batches(
    setting: Values, repetitions: int, measure: Measure
) -> tuple[str, dict[str, Any]]:
    sizes = [max(1, setting["batch"] // parts) for parts in _PARTS_OF_BATCH]
    found: dict[int, list[Values]] = {size: [] for size in sizes}
    for _ in range(repetitions):
        for size, runs in found.items():
            runs.append(measure("training", {**setting, "micro_batch": size}))
    rows = ["| images at a time | images/s in training steps | peak memory, MiB |", "|---|---|---|"]
    for size, runs in found.items():
        cells = (middle([run[key] for run in runs]) for key in ("images_per_s", "memory_mib"))
        rows.append(f"| {size} | {' | '.join(cells)} |")
    head = f"Micro-batches: {setting['backbone']}, batch {setting['batch']}"
    return _section("\n".join([head, *rows])), {
        "micro_batch": {str(k): v for k, v in found.items()}
    }


def _two_at_a_time(
    setting: Values, repetitions: int, measure: Measure
) -> tuple[str, dict[str, Any]]:
    alone, both = [], []
    for _ in range(repetitions):
        alone.append(measure("training", setting)["images_per_s"])
        with ThreadPoolExecutor(2) as pool:  # each waits for a process
            runs = list(pool.map(lambda _: measure("training", setting), range(2)))
        both.append(sum(run["images_per_s"] for run in runs))
    rows = [
        f"Two runs on one device: {setting['backbone']}, batch {setting['batch']}",
        "| runs | images/s in training steps, together |",
        "|---|---|",
        f"| one | {middle(alone)} |",
        f"| two at the same time | {middle(both)} |",
    ]
    return _section("\n".join(rows)), {"two_runs": {"alone": alone, "both": both}}
