"""``smm eval <model> [dataset=... split=...]``: how good a trained classifier is on a split.

The model is a run's folder, a checkpoint or a file of ``smm export``. A run without ``dataset=`` is
measured on its own images (``dataset.<field>=`` changes a field of them), in its own precision.
Classes of another dataset are found by their names, without case and separators, in any order;
--classes says which are the same otherwise.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from smm_lightning.classifier import TrustedParts
from smm_lightning.dataset import ImageDataModule
from smm_lightning.device import AUTOCAST, keep_freed_memory
from smm_lightning.errors import did_you_mean, problem
from smm_lightning.files import write_atomically, writing
from smm_lightning.inference.classes import matched, pairs_of
from smm_lightning.inference.model import PRECISIONS, Model, load_model
from smm_lightning.inference.options import add_options, device_of
from smm_lightning.run.config import composed
from smm_lightning.run.images import changed_images, require_noted_images
from smm_lightning.run.result import read_result
from smm_lightning.run.settings import arguments, require_configuration

SPLITS = ("test", "val", "train")
_TOP = 5
_BATCH = 64
_BINS = 15  # of the calibration error, as in Guo et al., ICML 2017


def main() -> None:
    """The command."""
    options = _options()
    keep_freed_memory()
    split, words = _split_of(options.words)
    if (file := options.json) is not None and (file.is_dir() or not file.parent.is_dir()):
        raise problem("--json", "is no file in a folder that is there", str(file))
    device, result = device_of(options.device), _result_of(options.model)
    precision = options.precision or _own_precision(result, device)
    model = load_model(options.model, device, options.weights, precision, options.trust)
    given = {"size": model.input_size, "augmented": False}
    parts, node = TrustedParts(options.trust), _dataset_node(words, result)
    data: ImageDataModule = parts.build("dataset", arguments(node), ImageDataModule, **given)
    data.setup()
    if split not in data.image_counts:
        hint = did_you_mean(split, data.image_counts)
        raise problem("split", "this dataset has none", split, hint)
    if result is not None and not words and (changed := changed_images(result, data.taken)):
        raise problem(str(options.model), f"was trained with other images: {changed}")
    places = matched(data.class_names, model.class_names, pairs_of(options.classes))
    batches = data.plain_batches(split, torch.device("cpu"))
    pairs = ((batch["image"], batch["target"]) for batch in batches)
    measured = {
        "model": str(options.model),
        "dataset": node.get("name") or data.name,
        "split": split,
        "precision": precision,
        **evaluate(model, pairs, places),
    }
    print(rendered(measured))
    if file is not None:
        with writing("--json", file):
            write_atomically(file, (json.dumps(measured, indent=2) + "\n").encode())


@torch.inference_mode()
def evaluate(
    model: Model, pairs: Iterable[tuple[Tensor, Tensor]], places: Sequence[int]
) -> dict[str, Any]:
    """Accuracy and more.

    Args:
        model: to be measured.
        pairs: images (B, 3, input_size, input_size) in [0, 1], and targets (B,).
        places: for each class of the targets its number in the model.

    Returns:
        ``images``, ``accuracy``, ``mean_class_accuracy`` over classes with images, ``top5`` (of
        more than 5 classes), ``loss`` (mean cross-entropy), ``calibration_error`` (expected, L1
        over 15 bins), ``classes``, and ``confusion`` (true by predicted).
    """
    order = torch.tensor(list(places))
    answers = [(model.logits(images).float().cpu(), order[targets]) for images, targets in pairs]
    logits, targets = (torch.cat(parts) for parts in zip(*answers, strict=True))
    classes = len(model.class_names)
    confusion = multiclass_confusion_matrix(logits, targets, classes)
    of_class = confusion.sum(1)
    right = confusion.diagonal()[of_class > 0] / of_class[of_class > 0]
    top = multiclass_accuracy(logits, targets, classes, average="micro", top_k=min(_TOP, classes))
    confidences = logits.softmax(1)
    return {
        "images": len(targets),
        "accuracy": confusion.diagonal().sum().item() / len(targets),
        "mean_class_accuracy": right.mean().item(),
        **({"top5": top.item()} if classes > _TOP else {}),
        "loss": cross_entropy(logits, targets).item(),
        "calibration_error": multiclass_calibration_error(
            confidences, targets, classes, n_bins=_BINS
        ).item(),
        "classes": model.class_names,
        "confusion": confusion.tolist(),
    }


def rendered(measured: Mapping[str, Any]) -> str:
    """For people: the numbers, and for each class what it is most often taken for."""
    names = measured["classes"]
    what = (str(measured[name]) for name in ("model", "dataset", "split"))
    lines = [f"{', '.join(what)}: {measured['images']} images, {measured['precision']}"]
    shown = ("accuracy", "mean_class_accuracy", "top5", "calibration_error")
    lines += [
        f"{name.replace('_', ' '):20} {100 * measured[name]:6.2f} %"
        for name in shown
        if name in measured
    ]
    lines += [f"{'loss':20} {measured['loss']:6.4f}", ""]
    width = max(map(len, names))
    for number, row in enumerate(measured["confusion"]):
        if not (count := sum(row)):
            lines.append(f"{names[number]:{width}}  no images")
            continue
        others = [(n, place) for place, n in enumerate(row) if place != number and n]
        most = max(others, key=lambda pair: (pair[0], -pair[1]), default=None)
        taken = f"  taken for {names[most[1]]} {most[0]}" if most else ""
        lines.append(
            f"{names[number]:{width}}  {100 * row[number] / count:5.1f} % of {count}{taken}"
        )
    return "\n".join(lines)


def _split_of(words: Sequence[str]) -> tuple[str, list[str]]:
    """The split, and the words that say which dataset.

    Raises:
        UserError: If the split is unknown or named twice, or a word says something else.
    """
    splits = [word.partition("=")[2] for word in words if word.startswith("split=")]
    if len(splits) > 1:
        raise problem("split", "is named twice", " ".join(splits))
    split = splits[0] if splits else "test"
    if split not in SPLITS:
        raise problem("split", "unknown", split, did_you_mean(split, SPLITS))
    others = [word for word in words if not word.startswith("split=")]
    for word in others:
        if not word.startswith(("dataset=", "dataset.", "paths.")):
            hint = (
                "It takes dataset=<name>, dataset.<field>=<value>, paths.<name>=<folder>, split=."
            )
            raise problem("eval", "takes no such word", word, hint)
    return split, others


def _result_of(model: Path) -> dict[str, Any] | None:
    """Of the run that a model lies in the folder of."""
    folder = model if model.is_dir() else model.parent
    of_run = model.is_dir() or model.suffix == ".ckpt"
    return read_result(folder) if of_run else None


def _dataset_node(words: Sequence[str], result: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of the configuration, or of the run itself with fields of its own.

    Raises:
        UserError: If neither says which dataset, or a value is wrong.
    """
    if any(word.startswith("dataset=") for word in words):
        config = composed(words)
        require_configuration(config)
        config.dataset.batch_size = 1  # there is no step that a few images would be too few for
        config.dataset.evaluation_batch_size = _BATCH
        node: Any = OmegaConf.to_container(config.dataset, resolve=True)
    elif result is not None:
        require_noted_images(result, result["run_name"])
        fields = [word.removeprefix("dataset.") for word in words if word.startswith("dataset.")]
        if paths := [word for word in words if word.startswith("paths.")]:
            hint = "Use dataset.source.root=<folder>, or dataset=<name>."
            raise problem("paths", "the run knows its own", paths[0], hint)
        own = OmegaConf.create(dict(result["config"]["dataset"]))
        node = OmegaConf.to_container(OmegaConf.merge(own, OmegaConf.from_dotlist(fields)))
    else:
        hint = "Only a finished run knows its own: use dataset=<name>."
        raise problem("dataset", "is missing", hint=hint)
    return dict(node)


def _own_precision(result: Mapping[str, Any] | None, device: torch.device) -> str:
    """As the run's own test, where the same kind of device measures again; else float32."""
    if result is None or (result["device"] == "cpu") != (device.type == "cpu"):
        return "32-true"
    precision = result.get("evaluation_precision", result["precision"])
    return str(precision) if precision in AUTOCAST else "32-true"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder of a run, checkpoint, or export")
    parser.add_argument("words", nargs="*", help="dataset=<name>, its fields, split=<name>")
    parser.add_argument(
        "--classes",
        action="append",
        default=[],
        metavar="A=B,...",
        help="classes of the dataset and of the model that are the same",
    )
    parser.add_argument("--json", type=Path, help="write everything there, with the confusions")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: the run's, else 32-true")
    add_options(parser)
    return parser.parse_intermixed_args()
