"""The table of a benchmark, from its measurements alone."""

import statistics
from collections.abc import Iterator
from typing import Any

from smm_lightning.benchmark.measure import middle

_ROWS = (
    ("training", "images/s in training steps", "images_per_s"),
    ("epoch", "seconds an epoch", "epoch_s"),
    ("mapping", "of it the mapping pass", "mapping_s"),
    ("steps", "of it training steps", "training_s"),
    ("test", "of it the test", "test_s"),
    ("memory", "peak memory, MiB", "memory_mib"),
)


def lines(found: dict[str, Any]) -> Iterator[str]:
    """Markdown: the setting, the limit's candidates, and a column for each side."""
    setting, machine = found["setting"], found["machine"]
    what = (f"{key} {setting[key]}" for key in ("backbone", "size", "method", "batch"))
    device = machine["gpu"] or f"{machine['cpu']} ({machine['capability']})"
    yield ", ".join(what)
    yield f"{device}, {machine['threads']} threads, torch {machine['versions']['torch']}"
    yield f"`{found['command']}`"
    for name, sides in found["cases"].items():
        yield ""
        if name != "-":
            yield f"**{name}**"
        yield from _limit(sides.get("limit"), found["ceilings"])
        yield from _table(sides)


def _limit(runs: list[dict[str, Any]] | None, ceilings: list[dict[str, float]]) -> Iterator[str]:
    if runs is None:
        return
    yield "| frozen network alone, forward and backward | images/s |"
    yield "|---|---|"
    for name in runs[0]["candidates"]:
        yield f"| {name} | {middle([run['candidates'][name] for run in runs])} |"
    if ceilings:
        best = statistics.median(run["images_per_s"] for run in runs)
        top = ceilings[0]
        flops = top["gflop_per_image"] * best / top["arithmetic_gflop_per_s"]
        moved = top["gb_per_image"] * best / top["bandwidth_gb_per_s"]
        yield ""
        yield (
            f"{top['gflop_per_image']:.1f} GFLOP and {top['gb_per_image']:.2f} GB an image. On this "
            f"device a large matrix product reaches {top['arithmetic_gflop_per_s']:.0f} GFLOP/s, a "
            f"large copy {top['bandwidth_gb_per_s']:.0f} GB/s: the limit is at {flops:.0%} of the "
            f"one and {moved:.0%} of the other."
        )
    yield ""


def _table(sides: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    ours, theirs = sides["training"], sides.get("published")
    yield f"| {ours[0]['precision']} | ours | published | ratio |"
    yield "|---|---|---|---|"
    for _, title, key in _ROWS:
        own = middle([run[key] for run in ours])
        if theirs is None:
            yield f"| {title} | {own} | | |"
            continue
        ratio = _median(ours, key) / _median(theirs, key)
        ratio = ratio if key == "images_per_s" else 1 / ratio if ratio else 0
        yield f"| {title} | {own} | {middle([run[key] for run in theirs])} | {ratio:.2f} |"
    if "limit" in sides:
        share = _median(ours, "images_per_s") / _median(sides["limit"], "images_per_s")
        yield f"| training steps over the limit | {share:.2f} | | |"


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(run[key] for run in runs))
