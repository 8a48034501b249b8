"""``smm benchmark``: how close training is to the frozen network alone.

The limit (the frozen network forward and backward to its input), our training steps and epochs, and
on request the published code's on the same images: every measurement in a process of its own, in
turns, with medians and spreads.
"""

import argparse
import dataclasses
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from smm_lightning.benchmark.report import lines

PARTS = ("limit", "training", "published", "ceilings")
VARIED = (
    *("train_images", "classes", "width", "batch", "micro_batch", "precision", "refresh"),
    "method",
)


def main() -> None:
    """Measure and print."""
    options = _parser().parse_args()
    if options.part:
        _answer(options.part, options.given)
        return
    if options.table:
        print("\n".join(_table(options)))
        return
    command = "smm benchmark " + " ".join(sys.argv[1:])
    with tempfile.TemporaryDirectory() as work:
        setting = _setting(options, work)
        measured: Any
        if options.gpu_report:
            measured = _gpu_report(setting, options, command)
        else:
            measured = {**measure_all(setting, options), "command": command}
            print("\n".join(lines(measured)))
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")


def _gpu_report(
    setting: dict[str, Any], options: argparse.Namespace, command: str
) -> list[dict[str, Any]]:
    """Print it, a section as soon as it is measured."""
    from smm_lightning.benchmark.gpu_report import gpu_report

    print(f"# {_device(_machine(setting))}\n\n`{command}`\n")
    sections = []
    for text, measured in gpu_report(setting, options, measure_all, _in_process):
        print(text, flush=True)
        sections.append(measured)
    return sections


def _device(machine: dict[str, Any]) -> str:
    device = machine["gpu"] or f"{machine['cpu']} ({machine['capability']})"
    return f"{device}, {machine['threads']} threads, torch {machine['versions']['torch']}"


def measure_all(setting: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """All measurements of a run."""
    measured: dict[str, Any] = {"setting": setting, "machine": _machine(setting), "cases": {}}
    cases = [{}] if options.vary is None else [{options.vary[0]: v} for v in options.vary[1:]]
    measured["ceilings"] = [] if options.vary else [_in_process("ceilings", setting)]
    for _ in range(options.repetitions):
        for case in cases:
            name = " ".join(f"{key} {value}" for key, value in case.items()) or "-"
            varied = {**setting, **{k: type(setting[k])(v) for k, v in case.items()}}
            parts = ["training"] if options.vary else ["limit", "training"]
            for part in [*parts, *(["published"] if setting["peer"] else [])]:
                runs = measured["cases"].setdefault(name, {}).setdefault(part, [])
                runs.append(_in_process(part, varied))
    return measured


def _table(options: argparse.Namespace) -> Iterator[str]:
    """A table of the paper that needs no training."""
    from smm_lightning.benchmark.paper_tables import table4, table5
    from smm_lightning.benchmark.setting import Setting
    from smm_lightning.device import keep_freed_memory

    keep_freed_memory()
    setting = Setting(**_setting(options, "."))
    machine = _machine(dataclasses.asdict(setting))
    yield from table4() if options.table == "table4" else table5(setting)
    yield ""
    yield _device(machine)


def _setting(options: argparse.Namespace, work: str) -> dict[str, Any]:
    """As plain values; checked before anything is measured."""
    import torch

    from smm_lightning.benchmark.published import refusal
    from smm_lightning.benchmark.setting import Setting, resolved

    fields = {field.name for field in dataclasses.fields(Setting)}
    given = {k: v for k, v in vars(options).items() if k in fields and v is not None}
    given["accelerator"] = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    setting = Setting(**{**given, "work": work})
    problem = refusal(setting) if setting.peer else None
    if problem is not None:
        sys.exit(f"error: --peer: {problem}")
    if options.vary and options.vary[0] not in VARIED:
        sys.exit(f"error: --vary: unknown (got '{options.vary[0]}'). Known: {', '.join(VARIED)}.")
    return resolved(setting)


def _answer(part: str, given: str) -> None:
    """In a process of its own: measure one part, and write the result as the last line."""
    import importlib

    from smm_lightning.benchmark.setting import Setting
    from smm_lightning.device import keep_freed_memory

    setting = Setting(**json.loads(given))
    if part != "published":
        keep_freed_memory()
    if part == "ceilings":
        from smm_lightning.benchmark.limit import ceilings as measure
    else:
        measure = importlib.import_module(f"smm_lightning.benchmark.{part}").measure
    result = measure(setting)
    print("\n" + json.dumps(result))


def _in_process(part: str, setting: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", "smm_lightning.benchmark"]
    command += ["--part", part, "--given", json.dumps(setting)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"{done.stderr}\nerror: the measurement of {part} failed, see above")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    keys = [key for key in ("images_per_s", "epoch_s") if key in result]
    shown = "  ".join(f"{key} {result[key]:.1f}" for key in keys)
    print(f"{part:10} {shown}", file=sys.stderr, flush=True)
    return result


def _machine(setting: dict[str, Any]) -> dict[str, Any]:
    import torch

    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    cuda = setting["accelerator"] == "cuda"
    return {
        "cpu": name,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "versions": {name: version(name) for name in ("torch", "torchvision", "lightning", "timm")},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "table", nargs="?", choices=("table4", "table5"), help="of the paper, instead"
    )
    parser.add_argument("--backbone", default="resnet18", help="of conf/backbone (resnet18)")
    parser.add_argument("--size", type=int, help="side of the input; default: the backbone's")
    parser.add_argument("--method", help="of conf/method (smm)")
    parser.add_argument("--batch", type=int, help="images a step (32)")
    parser.add_argument("--micro-batch", type=int, help="images at a time in training (all)")
    parser.add_argument("--precision", help="auto (default), 32-true, bf16-mixed, 16-mixed")
    parser.add_argument("--refresh", help="of the mapping: epoch (default), running, once")
    parser.add_argument("--train-images", type=int, help="images an epoch (640)")
    parser.add_argument("--test-images", type=int, help="images tested after an epoch (128)")
    parser.add_argument("--classes", type=int, help="target classes (10)")
    parser.add_argument("--width", type=int, help="of the mask generator (8)")
    parser.add_argument("--epochs", type=int, help="the last one counts (2)")
    parser.add_argument("--steps", type=int, help="timed steps of the limit (8)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where it is")
    parser.add_argument("--compiled", action="store_true", help="compile on a CPU, too")
    parser.add_argument("--peer", help="a checkout of the published code, tmlr-group/SMM")
    parser.add_argument("--peer-batch", type=int, help="its batch size, where it is to differ")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--vary",
        nargs="+",
        metavar=("NAME", "VALUE"),
        help=f"our side alone, for each value; names: {', '.join(VARIED)}",
    )
    parser.add_argument(
        "--gpu-report",
        action="store_true",
        help="networks, micro-batches, two runs at a time: all that there is to measure on a card",
    )
    parser.add_argument("--json", type=Path, help="write all measurements here")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--given", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
