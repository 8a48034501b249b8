"""The limit: the frozen network alone, forward and backward to its input, on resident data."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from smm_lightning.benchmark.measure import peak_memory, seconds_a_call
from smm_lightning.benchmark.setting import Setting, config_of, spec_of
from smm_lightning.device import AUTOCAST, fuses_attention, precision_for

Network = Callable[[torch.Tensor], torch.Tensor]


def measure(setting: Setting) -> dict[str, Any]:
    """Images per second of every candidate: each has one thing more than the one before it."""
    precision = precision_for(setting.precision, setting.device, spec_of(setting).architecture())
    speeds = {}
    for name, step in _candidates(setting, precision):
        seconds = seconds_a_call(step, setting.steps, setting.device)
        speeds[name] = setting.batch / seconds
        print(f"  {name}: {speeds[name]:.1f}", flush=True)
    best = max(speeds, key=lambda name: speeds[name])
    return {
        "precision": precision,
        "candidates": speeds,
        "best": best,
        "images_per_s": speeds[best],
        "memory_mib": peak_memory(setting.device),
    }


def _candidates(setting: Setting, precision: str) -> Iterator[tuple[str, Callable[[], object]]]:
    options = {"folded": False, "channels_last": False, "fast_stem": False}
    yield "as it comes", _step(setting, spec_of(setting, **options).build())
    for option in ("channels_last", "folded", "fast_stem"):
        options[option] = True
        yield f"+ {option}", _step(setting, spec_of(setting, **options).build())
    half = AUTOCAST.get(precision)
    network = spec_of(setting).build()
    if half is not None:
        yield f"+ {precision}", _step(setting, network, half)
    if setting.backbone == "vit_b32":
        fused = fuses_attention(setting.device, precision, requested=None)
        network.fuse_attention(fused=not fused)
        yield f"+ attention {'not ' if fused else ''}fused", _step(setting, network, half)
        network.fuse_attention(fused=fused)
        yield f"+ attention {'' if fused else 'not '}fused", _step(setting, network, half)
    if setting.compiled or setting.device.type == "cuda":
        fast = torch.compile(network, dynamic=False, mode="reduce-overhead")
        yield "+ compiled", _step(setting, fast, half)


def _step(
    setting: Setting, network: Network, half: torch.dtype | None = None
) -> Callable[[], object]:
    device = setting.device
    if isinstance(network, nn.Module):
        network.to(device)
    side = config_of(setting).backbone.image_size
    shape = (setting.batch, 3, side, side)
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    images.requires_grad_()

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, dtype=half, enabled=half is not None):
            logits = network(images)
        images.grad = None
        logits.backward(torch.ones_like(logits))

    return step


def ceilings(setting: Setting) -> dict[str, float]:
    """What the device can do at best, and what the network asks of it, for each image.

    Arithmetic from a large matrix product and bandwidth from a large copy. Bytes count every input
    and output of every operation once: a fused or cached program moves fewer.
    """
    device = setting.device
    spec = spec_of(setting, folded=True, channels_last=True, fast_stem=False)
    network = spec.build().to(device)
    network.fuse_attention(fused=False)  # a fused kernel's operations are not all counted
    precision = precision_for(setting.precision, device, network.body)
    half = AUTOCAST.get(precision)
    side = 8192 if device.type == "cuda" else 2048
    square = torch.rand(side, side, device=device, dtype=half or torch.float32)
    block = torch.rand(2**28 if device.type == "cuda" else 2**26, device=device)
    target = torch.empty_like(block)
    product = seconds_a_call(lambda: square @ square, setting.steps, device)
    copy = seconds_a_call(lambda: target.copy_(block), setting.steps, device)
    step = _step(setting, network, half)
    with FlopCounterMode(display=False) as flops:
        step()
    with _Bytes() as moved:
        step()
    return {
        "arithmetic_gflop_per_s": 2 * side**3 / product / 1e9,
        "bandwidth_gb_per_s": 2 * block.nbytes / copy / 1e9,
        "gflop_per_image": flops.get_total_flops() / setting.batch / 1e9,
        "gb_per_image": moved.total / setting.batch / 1e9,
    }


class _Bytes(TorchDispatchMode):
    """Adds up the inputs and outputs of all operations that touch data."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            outputs = result if isinstance(result, tuple | list) else [result]
            for value in (*args, *outputs):
                self.total += value.nbytes if isinstance(value, torch.Tensor) else 0
        return result
