"""``smm predict <model> <images, folders, patterns, or - >``: class names and confidences.

The model is a checkpoint, the folder of a run or of ``save_pretrained``, or a file of ``smm
export`` (.safetensors, .pt2, .onnx). Rows come in the order of the images: files and folders as
they were named, a pattern such as 'photos/**/*.jpg' sorted, and with - the lines of the standard
input, each as often as it stands there. Files that cannot be read are named and left out; the exit
status is then 1.
"""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from smm_lightning.dataset.decoding import Decoding, decoded
from smm_lightning.dataset.image_files import BROKEN_LINK, CLOSED, ImagePaths, Walker
from smm_lightning.device import keep_freed_memory
from smm_lightning.errors import UserError, problem
from smm_lightning.files import write_atomically, writing
from smm_lightning.inference.model import PRECISIONS, Model, load_model
from smm_lightning.inference.options import add_options, device_of

Row = dict[str, Any]
_FORMATS = ("table", "csv", "json")


class ImageFiles(Dataset[tuple[int, Tensor | str]]):
    """Files as (number, uint8 (3, size, size)), or (number, why it cannot be read).

    As in the tests of training: RGB, then PIL's bilinear resizing to a square.

    Args:
        paths: of the files.
        size: side, in pixels.
        decoding: from files to RGB.
    """

    def __init__(self, paths: Sequence[Path], size: int, decoding: Decoding) -> None:
        self.paths = paths
        self.size = size
        self.decoding = decoding

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[int, Tensor | str]:
        try:
            image = decoded(self.paths[number], str(self.paths[number]), self.decoding)
        except UserError as error:
            return number, error.problems[0]
        pixels = np.array(image.resize((self.size, self.size), Image.Resampling.BILINEAR))
        return number, torch.from_numpy(pixels).permute(2, 0, 1)


def _one_tensor(
    batch: Sequence[tuple[int, Tensor | str]],
) -> tuple[Tensor, list[tuple[int, str]]]:
    """Images (B', 3, s, s), and for each file its number and why it is not among them.

    A worker hands over every tensor by an open file, of which there may be few.
    """
    images = [content for _, content in batch if isinstance(content, Tensor)]
    reasons = [
        (number, "" if isinstance(content, Tensor) else content) for number, content in batch
    ]
    return (torch.stack(images) if images else torch.empty(0)), reasons


def predictions(
    model: Model, paths: Sequence[Path], *, batch_size: int = 64, workers: int = 0, top: int = 1
) -> Iterator[Row]:
    """A row for each file, in order: ``file`` and ``classes`` with confidences, or ``error``.

    Args:
        model: that classifies.
        paths: of images in any format that PIL reads.
        batch_size: images a step.
        workers: processes that decode; 0 decodes in this one.
        top: how many classes, the likeliest first.
    """
    files = ImageFiles(paths, model.input_size, model.decoding)
    loader = DataLoader(files, batch_size, num_workers=workers, collate_fn=_one_tensor)
    for images, reasons in loader:
        answers = model.confidences(images.float() / 255) if len(images) else images
        confidences: Iterator[Tensor] = iter(answers)
        for number, reason in reasons:
            row: Row = {"file": str(paths[number])}
            if reason:
                yield {**row, "error": reason}
                continue
            values, indices = next(confidences).topk(min(top, len(model.class_names)))
            names = [model.class_names[index] for index in indices.tolist()]
            pairs = zip(names, values.tolist(), strict=True)
            yield {**row, "classes": [{"class": n, "confidence": v} for n, v in pairs]}


def files_of(places: Sequence[Path]) -> ImagePaths:
    """Files that were named, whatever their ending, and all image files below folders.

    Each file once, in the order of the places. ``-`` stands for the lines of the standard input,
    whose every line counts.

    Raises:
        UserError: If a place does not exist or is a pipe or a device, or there is no image at all.
    """
    walker, paths = Walker(), ImagePaths()
    for place in _expanded(places):
        if str(place) == "-":
            lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")  # names are bytes
            paths.images += [Path(line.removesuffix("\r")) for line in lines if line]
        elif not place.exists():
            raise problem("images", "no such file or folder", str(place))
        elif place.is_dir():
            (below,) = walker.below(place)
            paths.add(below)
        elif place.is_file():
            walker.file(place, paths)
        else:
            raise problem("images", "is no regular file", str(place))
    if not paths.images:
        raise problem("images", "no image files there", ", ".join(map(str, places)))
    return paths


def _expanded(places: Sequence[Path]) -> Iterator[Path]:
    """With what matches patterns instead of these; a file of that very name goes first."""
    for place in places:
        there = place.exists() or not has_magic(str(place))
        found = [] if there else sorted(glob(str(place), recursive=True))  # noqa: PTH207 - of any root
        yield from [Path(path) for path in found] or [place]


def rendered(rows: Sequence[Row], form: str) -> str:
    """Rows as a table for people, CSV (a line for each class), or JSON."""
    if form == "json":
        return json.dumps(rows, indent=2) + "\n"
    lines = [
        (row["file"], rank, one["class"], one["confidence"])
        for row in rows
        for rank, one in enumerate(row.get("classes", []), start=1)
    ]
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("file", "rank", "class", "confidence"))
        writer.writerows(lines)
        return text.getvalue()
    width = max((len(file) for file, *_ in lines), default=0)
    names = max((len(name) for _, _, name, _ in lines), default=0)
    return "".join(f"{f:{width}}  {n:{names}}  {100 * c:5.1f} %\n" for f, _, n, c in lines)


def main() -> None:
    """The command."""
    options = _options()
    keep_freed_memory()
    files = files_of(options.images)
    given = options.weights, options.precision, options.trust
    model = load_model(options.model, device_of(options.device), *given)
    settings = {"batch_size": options.batch_size, "workers": options.workers, "top": options.top}
    rows = []
    # On the error stream: the result may be piped on.
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("predicting", total=len(files.images))
        for row in predictions(model, files.images, **settings):
            rows.append(row)
            progress.advance(task)
    text = rendered(rows, options.format)
    if options.output is None:
        sys.stdout.write(text)
    else:
        with writing("--output", options.output):
            write_atomically(options.output, text.encode(errors="surrogateescape"))
    broken = [row["error"] for row in rows if "error" in row]
    for reason in (CLOSED, BROKEN_LINK):
        broken += [f"{path}: one of the {reason}" for path in files.left_out.pop(reason, [])]
    for message in [*(f"{count} {why}" for why, count in files.counts.items()), *broken]:
        print(f"left out: {message}", file=sys.stderr)
    sys.exit(bool(broken))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="checkpoint, folder of a run, or export")
    parser.add_argument("images", type=Path, nargs="+", help="files, folders, patterns, or -")
    parser.add_argument("--format", choices=_FORMATS, default="table")
    parser.add_argument("--output", type=Path, help="write there instead of on the screen")
    parser.add_argument("--top", type=int, default=1, help="classes an image (default 1)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="processes that decode")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    parser.add_argument("--precision", choices=PRECISIONS, default="32-true")
    add_options(parser)
    options = parser.parse_args()
    for name, least in (("top", 1), ("batch_size", 1), ("workers", 0)):
        if (value := getattr(options, name)) < least:
            raise problem(f"--{name.replace('_', '-')}", f"must be at least {least}", value)
    return options
