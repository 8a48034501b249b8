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
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from functools import partial
from glob import glob, has_magic
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Lock
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from smm_lightning.dataset.decoding import decoded
from smm_lightning.dataset.image_files import BROKEN_LINK, CLOSED, ImagePaths, Walker
from smm_lightning.device import keep_freed_memory
from smm_lightning.errors import UserError, problem
from smm_lightning.files import write_atomically, writing
from smm_lightning.inference.model import PRECISIONS, Model, load_model
from smm_lightning.inference.options import add_options, device_of

Row = dict[str, Any]
Given = TypeVar("Given")
Answer = TypeVar("Answer")
_FORMATS = ("table", "csv", "json")
_MOST_WORKERS = 8  # each holds a batch


def predictions(
    model: Model,
    paths: Sequence[Path],
    *,
    batch_size: int = 32,
    workers: int | None = None,
    top: int = 1,
) -> Generator[Row, None, None]:
    """A row for each file, in order: ``file`` and ``classes`` with confidences, or ``error``.

    Args:
        model: that classifies.
        paths: of images in any format that PIL reads.
        batch_size: images a step.
        workers: threads, each of which decodes and classifies batches of its own; ``None``: by the
            CPUs.
        top: how many classes, the likeliest first.
    """
    Image.init()  # Pillow's plugins, before several threads ask for them
    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    # One at a time on a GPU: what the others do meanwhile is to decode.
    alone = nullcontext() if model.device.type == "cpu" else Lock()
    for answers in _in_order(partial(_answers, model, alone=alone), batches, workers):
        for path, answer in answers:
            row: Row = {"file": str(path)}
            if isinstance(answer, str):
                yield {**row, "error": answer}
                continue
            values, indices = answer.topk(min(top, len(model.class_names)))
            names = [model.class_names[index] for index in indices.tolist()]
            pairs = zip(names, values.tolist(), strict=True)
            yield {**row, "classes": [{"class": n, "confidence": v} for n, v in pairs]}


def _in_order(
    function: Callable[[Given], Answer], items: Sequence[Given], workers: int | None
) -> Iterator[Answer]:
    """Answers in the order of the items, few of which are ahead of the reader.

    Threads with CPUs of their own neither wait for one another nor for a file.
    """
    threads = torch.get_num_threads()
    wanted = min(threads, _MOST_WORKERS) if workers is None else workers
    count = max(1, min(wanted, len(items)))
    started = Barrier(count + 1)

    def begin() -> None:
        torch.set_num_threads(-(-threads // count))
        # A failed beginning would empty the pool's queue, and with it the sign to end.
        with suppress(BrokenBarrierError):
            started.wait()

    pool = ThreadPoolExecutor(count, initializer=begin)
    ahead: deque[Future[Answer]] = deque()
    try:
        for number, item in enumerate(items, start=1):
            ahead.append(pool.submit(function, item))
            if number == count:
                started.wait()
                torch.set_num_threads(threads)  # also the number of all threads to come
            if len(ahead) > 2 * count:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        started.abort()
        pool.shutdown(cancel_futures=True)


@torch.inference_mode()
def _answers(
    model: Model, paths: Sequence[Path], *, alone: AbstractContextManager[Any]
) -> list[tuple[Path, Tensor | str]]:
    """For each file its confidences (T,), or why it cannot be read."""
    contents = [_pixels(path, model) for path in paths]
    images = [content for content in contents if isinstance(content, Tensor)]
    confidences: Iterator[Tensor] = iter(())
    if images:
        batch = torch.stack(images).float() / 255
        with alone:
            confidences = iter(model.confidences(batch).cpu())
    answers = (c if isinstance(c, str) else next(confidences) for c in contents)
    return list(zip(paths, answers, strict=True))


def _pixels(path: Path, model: Model) -> Tensor | str:
    """uint8 (3, size, size) as in the tests of training, or why the file cannot be read.

    RGB, then PIL's bilinear resizing to a square.
    """
    try:
        image = decoded(path, str(path), model.decoding)
    except UserError as error:
        return error.problems[0]
    pixels = np.array(image.resize(2 * (model.input_size,), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1)


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
    found = closing(predictions(model, files.images, **settings))
    with Progress(console=Console(stderr=True), transient=True) as progress, found as answers:
        task = progress.add_task("predicting", total=len(files.images))
        for row in answers:
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
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--workers",
        type=int,
        help="threads, each with a batch in memory (default: by the CPUs, at most 8)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    parser.add_argument("--precision", choices=PRECISIONS, default="32-true")
    add_options(parser)
    options = parser.parse_args()
    for name, least in (("top", 1), ("batch_size", 1), ("workers", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise problem(f"--{name.replace('_', '-')}", f"must be at least {least}", value)
    return options
