"""Tables 4 and 5 of the paper, which need no training: counted and timed on the parts as built."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from smm_lightning.benchmark.measure import seconds_a_call
from smm_lightning.benchmark.setting import Setting, spec_of
from smm_lightning.device import AUTOCAST, fuses_attention, precision_for
from smm_lightning.method import INTERPOLATIONS, SampleSpecificMask, use_kernel
from smm_lightning.report.paper import rows_of
from smm_lightning.run.config import composed
from smm_lightning.training.assembly import build

BACKBONES = ("resnet18", "resnet50", "vit_b32")
_PAPER_BATCH = 256  # on an A100


def table4() -> Iterator[str]:
    """Trained parameters of SMM, as shares of the pattern and of the frozen network (Table 4)."""
    printed = {row["backbone"]: row for row in rows_of("table4")}
    yield "Table 4: parameters of the mask generator, counted from the built parts."
    yield ""
    yield "| | f_mask | delta | f_mask of delta | network | f_mask of network | paper |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for backbone in BACKBONES:
        counts = counted(backbone)
        generator, pattern, network = (counts[n] for n in ("mask_generator", "pattern", "network"))
        row = printed[backbone]
        paper = f"{float(row['mean']):,.0f}; {row['note']}"
        yield (
            f"| {backbone} | {generator:,} | {pattern:,} | {generator / pattern:.2%} | "
            f"{network:,} | {generator / network:.2%} | {paper} |"
        )


def counted(backbone: str) -> dict[str, int]:
    """Numbers of parameters of ``mask_generator``, ``pattern`` and ``network``.

    Args:
        backbone: of ``conf/backbone``.
    """
    method = smm_of(backbone)
    with torch.device("meta"):  # without memory
        network = spec_of(Setting(backbone=backbone)).architecture()
    groups = {**method.parameter_groups(), "network": list(network.parameters())}
    return {name: sum(weight.numel() for weight in group) for name, group in groups.items()}


def smm_of(backbone: str, interpolation: str = "patchwise") -> SampleSpecificMask:
    """SMM as it is trained with a backbone."""
    words = [f"backbone={backbone}", "recipe=paper", f"method.interpolation={interpolation}"]
    config = composed(words)
    spec = spec_of(Setting(backbone=backbone))
    method: SampleSpecificMask = build(config.method, "method", **spec.of_images)
    return method


def table5(setting: Setting) -> Iterator[str]:
    """Pixel accesses and times of the three interpolations (Table 5).

    Args:
        setting: device, precision, images a step and how many steps are timed.
    """
    yield (
        f"Table 5: interpolations, batches of {setting.batch} here, median of {setting.steps}; the "
        f"paper's of {_PAPER_BATCH} on an A100. A step is forward and backward through prompt and "
        "frozen network."
    )
    yield ""
    yield (
        "| | | million pixel accesses | paper | alone, forward, s | and backward, s | step, s | "
        "paper, s |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for backbone in BACKBONES:
        step = stepper(replace(setting, backbone=backbone, size=None))
        for interpolation in INTERPOLATIONS:
            method = smm_of(backbone, interpolation)
            paper = _printed(backbone, interpolation)
            forward, both = alone(setting, method)
            accesses = method.facts()["method/pixel_accesses"] / 1e6
            yield (
                f"| {backbone} | {interpolation} | {accesses:.3f} | "
                f"{paper.get('method/pixel_accesses', '')} | {forward:.4f} | {both:.4f} | "
                f"{step(method):.3f} | {paper.get('seconds_per_batch', '')} |"
            )


def alone(setting: Setting, method: SampleSpecificMask) -> tuple[float, float]:
    """Seconds of an interpolation of a batch: forward, and forward and backward.

    Args:
        setting: see :func:`table5`.
        method: whose interpolation it is.
    """
    side = -(-method.image_size // method.patch_size)
    coarse = torch.rand(setting.batch, 3, side, side, device=setting.device, requires_grad=True)

    def forward() -> torch.Tensor:
        return method.upsample(coarse, method.image_size, method.patch_size)

    def both() -> None:
        mask = forward()
        mask.backward(torch.ones_like(mask))

    with torch.no_grad():
        first = seconds_a_call(forward, setting.steps, setting.device)
    return first, seconds_a_call(both, setting.steps, setting.device)


def stepper(setting: Setting) -> Callable[[SampleSpecificMask], float]:
    """A function that gives the median seconds of a step with a method.

    Args:
        setting: see :func:`table5`; of one backbone.
    """
    spec = spec_of(setting)
    network = spec.build().to(setting.device)
    precision = precision_for(setting.precision, setting.device, network.body)
    network.fuse_attention(fused=fuses_attention(setting.device, precision, requested=None))
    half = AUTOCAST.get(precision)
    size = network.image_size
    images = torch.rand(setting.batch, 3, size, size, device=setting.device)

    def seconds(method: SampleSpecificMask) -> float:
        method.to(setting.device)
        use_kernel(method, fast=True)

        def step() -> None:
            with torch.autocast(setting.accelerator, dtype=half, enabled=half is not None):
                logits = network(method(images))
            logits.logsumexp(1).mean().backward()

        return seconds_a_call(step, setting.steps, setting.device)

    return seconds


def _printed(backbone: str, interpolation: str) -> Mapping[str, Any]:
    """The paper's numbers by metric; its ResNets share theirs."""
    family = "resnet18" if backbone.startswith("resnet") else backbone
    setting = f"method.interpolation={interpolation}"
    rows = [r for r in rows_of("table5") if (r["backbone"], r["setting"]) == (family, setting)]
    return {row["metric"]: row["mean"] for row in rows}
