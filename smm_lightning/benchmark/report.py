"""The tables of a benchmark, from its measurements alone."""

import statistics
from collections.abc import Iterator
from typing import Any

from smm_lightning.benchmark.measure import middle

Runs = list[dict[str, Any]]
_ROWS = (
    ("images/s in training steps", "images_per_s"),
    ("seconds an epoch", "epoch_s"),
    ("of it the mapping pass", "mapping_s"),
    ("of it training steps", "training_s"),
    ("of it the test", "test_s"),
    ("peak memory, MiB", "memory_mib"),
)


def lines(measured: dict[str, Any]) -> Iterator[str]:
    """Markdown: the setting, the candidates of the limit, and a column for each side or value."""
    setting, machine = measured["setting"], measured["machine"]
    what = (f"{key} {setting[key]}" for key in ("backbone", "size", "method", "batch"))
    device = machine["gpu"] or f"{machine['cpu']} ({machine['capability']})"
    yield ", ".join(what)
    yield f"{device}, {machine['threads']} threads, torch {machine['versions']['torch']}"
    yield f"`{measured['command']}`"
    yield ""
    cases = measured["cases"]
    if list(cases) != ["-"]:
        yield from _table({name: sides["training"] for name, sides in cases.items()})
        return
    sides = cases["-"]
    yield from _limit(sides["limit"])
    yield ""
    yield _ceilings(measured["ceilings"][0], _median(sides["limit"], "images_per_s"))
    yield ""
    yield from _table({"ours": sides["training"]}, sides.get("published"))
    ratio = _median(sides["training"], "images_per_s") / _median(sides["limit"], "images_per_s")
    yield ""
    yield f"Training steps over the limit: {ratio:.2f}."


def _limit(runs: Runs) -> Iterator[str]:
    yield "| frozen network alone, forward and backward | images/s |"
    yield "|---|---|"
    for name in runs[0]["candidates"]:
        yield f"| {name} | {middle([run['candidates'][name] for run in runs])} |"


def _ceilings(top: dict[str, float], images_per_s: float) -> str:
    arithmetic = top["gflop_per_image"] * images_per_s / top["arithmetic_gflop_per_s"]
    bandwidth = top["gb_per_image"] * images_per_s / top["bandwidth_gb_per_s"]
    return (
        f"{top['gflop_per_image']:.1f} GFLOP and {top['gb_per_image']:.2f} GB an image. A large "
        f"matrix product reaches {top['arithmetic_gflop_per_s']:.0f} GFLOP/s here, a large copy "
        f"{top['bandwidth_gb_per_s']:.0f} GB/s: the limit is at {arithmetic:.0%} of the one and "
        f"{bandwidth:.0%} of the other."
    )


def _table(columns: dict[str, Runs], published: Runs | None = None) -> Iterator[str]:
    precision = next(iter(columns.values()))[0]["precision"]
    names = [*columns, *(["published", "ratio"] if published else [])]
    yield f"| {precision} | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for title, key in _ROWS:
        cells = [middle([run[key] for run in runs]) for runs in columns.values()]
        if published:
            ratio = _median(published, key) / _median(columns["ours"], key)
            ratio = 1 / ratio if key == "images_per_s" else ratio
            cells += [middle([run[key] for run in published]), f"{ratio:.2f}"]
        yield f"| {title} | {' | '.join(cells)} |"


def _median(runs: Runs, key: str) -> float:
    return float(statistics.median(run[key] for run in runs))
