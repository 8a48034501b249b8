"""``python -m smm_lightning.benchmark.prediction <run> <images>``: files against the network alone.

Images per second of the frozen network forward on resident data, of the whole classifier on the
same, and of ``smm_lightning.inference.predict`` on image files, in turns.
"""

import argparse
import time
from pathlib import Path

import torch

from smm_lightning.benchmark.measure import middle, seconds_a_call
from smm_lightning.classifier import ReprogrammedClassifier, read_prompt
from smm_lightning.device import AUTOCAST, keep_freed_memory, precision_for
from smm_lightning.inference.model import Model, load_model
from smm_lightning.inference.options import device_of
from smm_lightning.inference.predict import files_of, predictions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        "python -m smm_lightning.benchmark.prediction", description=__doc__
    )
    parser.add_argument("run", type=Path, help="folder of a run, checkpoint, or .safetensors")
    parser.add_argument("images", type=Path, nargs="+", help="files, or folders of them")
    parser.add_argument("--files", type=int, default=2000, help="at most so many (2000)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    keep_freed_memory()
    paths = files_of(options.images).images[: options.files]
    device = device_of(options.device)
    model = load_model(options.run, device, precision=options.precision)
    classifier = ReprogrammedClassifier.from_prompt(read_prompt(options.run)).to(device)
    speeds: dict[str, list[float]] = {}
    for _ in range(options.repetitions):
        for name, images_per_s in measure(options, model, classifier, paths).items():
            speeds.setdefault(name, []).append(images_per_s)
    workers = "default" if options.workers is None else options.workers
    print(f"{options.precision}, batch {options.batch}, workers: {workers}")
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {len(paths)} files")
    print("\n| forward | images/s |\n|---|---|")
    for name, values in speeds.items():
        print(f"| {name} | {middle(values)} |")


def measure(
    options: argparse.Namespace,
    model: Model,
    classifier: ReprogrammedClassifier,
    paths: list[Path],
) -> dict[str, float]:
    """Images per second of each, once.

    Args:
        options: of the command line.
        model: the whole, as predictions use it.
        classifier: whose frozen network is measured alone.
        paths: of the image files.
    """
    device = model.device
    half = AUTOCAST.get(precision_for(options.precision, device, classifier.backbone.body))
    side = classifier.input_transform.image_size
    inputs = torch.rand(options.batch, 3, side, side, device=device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    images = torch.rand(options.batch, 3, *2 * [classifier.input_size], device=device)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, half, enabled=half is not None),
    ):
        alone = seconds_a_call(lambda: classifier.backbone(inputs), options.steps, device)
    whole = seconds_a_call(lambda: model.confidences(images), options.steps, device)
    start = time.perf_counter()
    rows = predictions(model, paths, batch_size=options.batch, workers=options.workers)
    count = sum("classes" in row for row in rows)
    seconds = time.perf_counter() - start
    return {
        "frozen network alone": options.batch / alone,
        "with prompt and mapping": options.batch / whole,
        "from files": count / seconds,
    }


if __name__ == "__main__":
    main()
