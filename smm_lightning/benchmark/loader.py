"""``python -m smm_lightning.benchmark.loader``: how fast training images come, without a network.

Ours (image cache, crop and flip as tensors) beside torchvision's (PIL images, the transforms of the
published code, torch's DataLoader), each on one core in a process of its own, in turns. Two cases:
images of 32 x 32 enlarged to the size of the network, and JPEG files of the size + 32.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from smm_lightning.dataset import ImageDataModule, ImageFolder

CASES = ("small", "files")
SIDES = ("ours", "published")
_BATCH = 256
_MARGIN = 32


class SmallImages(ImageFolder):
    """A folder of images of 32 x 32, treated as CIFAR-10 is: the cache keeps them small."""

    name = "small"
    image_size = 32


def main() -> None:
    """Measure and print a row for each case and side."""
    options = _parser().parse_args()
    if options.side:
        print(json.dumps(_measured(options)))
        return
    measured: dict[str, list[dict[str, float]]] = {}
    _write_files(options)
    for case in CASES:
        build = _in_process(case, "ours")  # builds the caches; not counted below
        print(f"{case}: caches built and opened in {build['start_s']:.1f} s", flush=True)
        for _ in range(options.repetitions):
            for side in SIDES:
                measured.setdefault(f"{case} {side}", []).append(_in_process(case, side))
    print(f"{'':18}{'images/s':>10}{'spread':>16}{'own MiB':>9}{'mapped MiB':>12}{'start s':>9}")
    for name, runs in measured.items():
        speeds = [run["images_per_s"] for run in runs]
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        spread = f"{min(speeds):.0f} to {max(speeds):.0f}"
        print(
            f"{name:18}{middle['images_per_s']:10.0f}{spread:>16}{middle['own_mib']:9.0f}"
            f"{middle['mapped_mib']:12.0f}{middle['start_s']:9.1f}"
        )
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m smm_lightning.benchmark.loader", description=__doc__
    )
    parser.add_argument("folder", type=Path, help="images of 32 x 32: train/<class>/*, test/...")
    parser.add_argument("--work", type=Path, required=True, help="a folder for files and caches")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=10_000, help="images per measurement")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write all measurements here")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser


def _in_process(case: str, side: str) -> dict[str, float]:
    arguments = [*sys.argv[1:], "--case", case, "--side", side]
    command = [sys.executable, "-m", "smm_lightning.benchmark.loader", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _measured(options: argparse.Namespace) -> dict[str, float]:
    """Images per second of one side on one core, and the memory that it takes."""
    import torch

    from smm_lightning.device import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    before = _memory()
    start = time.perf_counter()
    batches = _ours(options) if options.side == "ours" else _published(options)
    next(batches)
    ready = time.perf_counter()
    count = 0
    memory = before
    for images in batches:
        count += len(images)
        memory = {key: max(value, _memory()[key]) for key, value in memory.items()}
        if count >= options.images:
            break
    elapsed = time.perf_counter() - ready
    return {
        "images_per_s": count / elapsed,
        "start_s": ready - start,
        "own_mib": memory["RssAnon"] - before["RssAnon"],
        "mapped_mib": memory["RssFile"] - before["RssFile"],
    }


def _root(options: argparse.Namespace) -> Path:
    folder: Path = options.folder if options.case == "small" else _files(options)
    return folder


def _ours(options: argparse.Namespace) -> Iterator[Any]:
    source = (SmallImages if options.case == "small" else ImageFolder)(str(_root(options)))
    data = ImageDataModule(
        source,
        batch_size=_BATCH,
        augmentation="paper",
        image_cache=options.work / "image_cache",
        size=options.size,
    )
    data.setup()
    for batch in data.train_dataloader():
        yield data.on_after_batch_transfer(batch, 0)["image"]


def _published(options: argparse.Namespace) -> Iterator[Any]:
    """SMM ``instancewise_vp.py``: its transforms and loader, with one process."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    pipeline = transforms.Compose(
        [
            transforms.Resize((options.size + _MARGIN, options.size + _MARGIN)),
            transforms.RandomCrop(options.size),
            transforms.RandomHorizontalFlip(),
            transforms.Lambda(lambda image: image.convert("RGB")),
            transforms.ToTensor(),
        ]
    )
    root = _root(options) / "train"
    dataset: Any = datasets.ImageFolder(str(root), transform=pipeline)
    if options.case == "small":  # torchvision's CIFAR10 holds an array and makes PIL images of it
        arrays = [np.asarray(Image.open(path).convert("RGB")) for path, _ in dataset.samples]
        dataset = _Arrays(np.stack(arrays), pipeline)
    for batch in DataLoader(dataset, _BATCH, shuffle=True):
        yield batch[0]


class _Arrays:
    def __init__(self, pixels: Any, pipeline: Any) -> None:
        self.pixels = pixels
        self.pipeline = pipeline

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.pipeline(Image.fromarray(self.pixels[index])), 0


def _files(options: argparse.Namespace) -> Path:
    side = options.size + _MARGIN
    folder: Path = options.work / f"jpeg-{side}"
    return folder


def _write_files(options: argparse.Namespace) -> None:
    """The images of the folder as JPEG files of the size + 32."""
    side = options.size + _MARGIN
    for path in sorted(options.folder.rglob("*.*")):
        target = _files(options) / path.relative_to(options.folder).with_suffix(".jpg")
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            large = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            large.save(target, quality=90)


def _memory() -> dict[str, float]:
    """Resident memory of this process in MiB: its own, and pages of files that all share."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    words = [line.split() for line in lines if line.startswith(("RssAnon", "RssFile"))]
    return {name.rstrip(":"): int(size) / 1024 for name, size, _ in words}


if __name__ == "__main__":
    main()
