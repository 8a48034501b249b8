"""Clocks and gauges."""

import resource
import statistics
import time
from collections.abc import Callable, Sequence

import torch

_KIB = 1024


def now(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def seconds_a_call(function: Callable[[], object], calls: int, device: torch.device) -> float:
    """Median time of a call, after two to warm up."""
    taken = []
    for _ in range(calls + 2):
        start = now(device)
        function()
        taken.append(now(device) - start)
    return statistics.median(taken[2:])


def peak_memory(device: torch.device) -> float:
    """The most that this process (or, on a GPU, its tensors) has held so far, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _KIB**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB


def middle(values: Sequence[float]) -> str:
    """Median and spread, such as ``25.1 (24.8-25.3)``."""
    text = f"{statistics.median(values):.{_digits(values)}f}"
    if len(values) == 1:
        return text
    low, high = (f"{value:.{_digits(values)}f}" for value in (min(values), max(values)))
    return f"{text} ({low}-{high})"


def _digits(values: Sequence[float]) -> int:
    return 0 if statistics.median(values) >= 100 else 1 if statistics.median(values) >= 10 else 2  # noqa: PLR2004
