"""Precisions, memory and what pays on which device (docs/BENCHMARKS.md); any can be set by hand."""

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

# Of autocast, by Lightning's names of precisions; others compute as they are.
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
_AMPERE = 8  # CUDA compute capability from which on there are bfloat16 units
# Options of glibc's mallopt, from its malloc.h, and what we set them to.
_ALLOCATION = {
    -4: 0,  # M_MMAP_MAX: large tensors come from the heap, too
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: the heap does not shrink
    -2: 256 * 1024 * 1024,  # M_TOP_PAD: and grows in large steps
}


def best_device() -> str:
    """The kind of device to compute on: a GPU where there is one."""
    there = (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
    return next((kind for kind, available in there if available), "cpu")


def precision_for(requested: str, device: torch.device, network: nn.Module) -> str:
    """Lightning's name of the precision to train with.

    bfloat16 autocast where the device has instructions for it, float16 on older GPUs, else float32.
    A CPU gains from it in dense layers; depthwise convolutions get slower.

    Args:
        requested: ``auto``, or a precision that is taken as it is.
        device: that trains.
        network: the frozen network.
    """
    if requested != "auto":
        return requested
    if device.type == "cuda":
        major, _ = torch.cuda.get_device_capability(device)
        return "bf16-mixed" if major >= _AMPERE else "16-mixed"
    if device.type == "cpu" and _cpu_has_bfloat16() and not has_grouped_convolutions(network):
        return "bf16-mixed"
    return "32-true"


def at_least_float32(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``fn`` of ``nn.Module._apply``, followed to other devices and float64, not to 16 bits.

    For what is trained or summed up: Adam's squared gradients vanish in float16, and so do steps
    of a hundredth of a weight in bfloat16.
    """

    def applied(value: Tensor) -> Tensor:
        moved = fn(value)
        return value.to(moved.device) if moved.dtype in AUTOCAST.values() else moved

    return applied


class AtLeastFloat32(nn.Module):
    """A module that stays in float32 or better, whatever the precision of the frozen network."""

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(at_least_float32(fn), recurse)  # type: ignore[no-untyped-call]
        return self


def compiles_on(device: torch.device, *, requested: bool | None) -> bool:
    """Whether to run the frozen network and the prompt through ``torch.compile``.

    Args:
        device: that trains.
        requested: ``None`` decides by the device: on GPUs; on CPUs it made nothing faster.
    """
    return device.type == "cuda" if requested is None else requested


def fuses_attention(device: torch.device, precision: str, *, requested: bool | None) -> bool:
    """Whether attention is one kernel.

    Args:
        device: that trains.
        precision: Lightning's name.
        requested: ``None`` decides: everywhere but on CPUs in 16 bits, whose kernel is slow.
    """
    return (device.type != "cpu" or "16" not in precision) if requested is None else requested


def has_grouped_convolutions(network: nn.Module) -> bool:
    """Whether there are depthwise or other grouped convolutions."""
    return any(isinstance(m, nn.Conv2d) and m.groups > 1 for m in network.modules())


def _cpu_has_bfloat16() -> bool:
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def keep_freed_memory() -> bool:
    """Let glibc reuse the activations' memory from step to step.

    By default every large tensor is mapped afresh and unmapped again, and the kernel zeroes its
    pages each time: more than half of a training step on a CPU (docs/BENCHMARKS.md).

    Returns:
        Whether the settings were taken; ``False`` where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, value) for option, value in _ALLOCATION.items())


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
