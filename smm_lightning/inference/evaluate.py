"""``smm eval <model> [dataset=... split=...]``: how good a trained classifier is on a split.

The model is a run's folder, a checkpoint or a file of ``smm export``; a run without ``dataset=`` is
measured on its own images, in its own precision. Classes of another dataset are found by their
names, without case and separators, in any order; --classes says which are the same otherwise.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
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
from smm_lightning.inference.model import PRECISIONS, Model, load_model
from smm_lightning.inference.options import add_options, device_of
from smm_lightning.run.config import CONF
from smm_lightning.run.images import changed_images, require_noted_images
from smm_lightning.run.result import read_result
from smm_lightning.run.settings import UNTAKEN, require_configuration

SPLITS = ("test", "val", "train")
_TOP = 5
_BATCH = 64
_BINS = 15  # of the calibration error, as in Guo et al., ICML 2017


def main() -> None:
    """The command."""
    options = _options()
    keep_freed_memory()
    split, overrides = _split_of(options.overrides)
    result = _result_of(options.model)
    node = _dataset_node(overrides, result)
    device = device_of(options.device)
    precision = options.precision or _own_precision(result, device)
    model = load_model(options.model, device, options.weights, precision, options.trust)
    given = {"size": model.input_size, "augmented": False}
    parts = TrustedParts(options.trust)
    data: ImageDataModule = parts.build("dataset", node, ImageDataModule, **given)
    data.setup()
    if split not in data.image_counts:
        raise problem(
            "split", "this dataset has none", split, did_you_mean(split, data.image_counts)
        )
    if result is not None and not overrides and (changed := changed_images(result, data.taken)):
        raise problem(str(options.model), f"was trained with other images: {changed}")
    places = matched(data.class_names, model.class_names, options.classes)
    batches = data.plain_batches(split, torch.device("cpu"))
    pairs = ((batch["image"], batch["target"]) for batch in batches)
    measured = {
        "model": str(options.model),
        "dataset": data.source.name,
        "split": split,
        "precision": precision,
        **evaluate(model, pairs, places),
    }
    print(rendered(measured))
    if options.json:
        with writing("--json", options.json):
            write_atomically(options.json, (json.dumps(measured, indent=2) + "\n").encode())


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


def matched(names: Sequence[str], known: Sequence[str], given: str = "") -> list[int]:
    """For each class of a dataset its number in a model.

    Args:
        names: of the dataset.
        known: of the model.
        given: ``name=known,...``, which go before equal names.

    Raises:
        UserError: If a class has none, or two have the same; both lists are shown.
    """
    said = dict(word.split("=", 1) for word in given.split(",") if "=" in word)
    exact = {name: number for number, name in enumerate(known)}
    plain: dict[str, list[int]] = defaultdict(list)
    for number, name in enumerate(known):
        plain[_plain(name)].append(number)
    found = []
    for name in names:
        wanted = said.get(name, name)
        alike = [exact[wanted]] if wanted in exact else plain[_plain(wanted)]
        found.append(alike[0] if len(alike) == 1 else None)
    hint = f"The dataset has {', '.join(names)}; the model has {', '.join(known)}."
    if missing := [name for name, number in zip(names, found, strict=True) if number is None]:
        what, how = "the model has no such class", "--classes <the dataset's>=<the model's>,..."
        raise problem("classes", what, ", ".join(missing), f"{hint} Use {how}.")
    if len(set(found)) < len(found):
        raise problem("classes", "two of the dataset are the same one of the model", hint=hint)
    return [number for number in found if number is not None]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


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
            continue
        others = [(n, place) for place, n in enumerate(row) if place != number and n]
        most = max(others, key=lambda pair: (pair[0], -pair[1]), default=None)
        taken = f"  taken for {names[most[1]]} {most[0]}" if most else ""
        lines.append(
            f"{names[number]:{width}}  {100 * row[number] / count:5.1f} % of {count}{taken}"
        )
    return "\n".join(lines)


def _split_of(words: Sequence[str]) -> tuple[str, list[str]]:
    """The split, and the words that say which dataset."""
    splits = [word.partition("=")[2] for word in words if word.startswith("split=")]
    split = splits[-1] if splits else "test"
    if split not in SPLITS:
        raise problem("split", "unknown", split, did_you_mean(split, SPLITS))
    return split, [word for word in words if not word.startswith("split=")]


def _result_of(model: Path) -> dict[str, Any] | None:
    """Of the run that a model lies in the folder of."""
    folder = model if model.is_dir() else model.parent
    of_run = model.is_dir() or model.suffix == ".ckpt"
    return read_result(folder) if of_run else None


def _dataset_node(overrides: Sequence[str], result: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of the configuration, or of the run itself.

    Raises:
        UserError: If neither says which dataset.
    """
    if overrides:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("train", list(overrides))
        config.dataset.batch_size = 1  # there is no step that a few images would be too few for
        config.dataset.evaluation_batch_size = _BATCH
        require_configuration(config)
        node: Any = OmegaConf.to_container(config.dataset, resolve=True)
    elif result is not None:
        require_noted_images(result, result["run_name"])
        node = result["config"]["dataset"]
    else:
        raise problem("dataset", "is missing", hint="Only a run knows its own: use dataset=<name>.")
    return {name: value for name, value in node.items() if name not in UNTAKEN}


def _own_precision(result: Mapping[str, Any] | None, device: torch.device) -> str:
    """As the run's own test, where the same kind of device measures again; else float32."""
    if result is None or (result["device"] == "cpu") != (device.type == "cpu"):
        return "32-true"
    return result["precision"] if result["precision"] in AUTOCAST else "32-true"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="folder of a run, checkpoint, or export")
    parser.add_argument("overrides", nargs="*", help="dataset=<name>, its fields, split=<name>")
    parser.add_argument(
        "--classes", default="", metavar="A=B,...", help="a dataset's and the model's"
    )
    parser.add_argument("--json", type=Path, help="write everything there, with the confusions")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, ...")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: the run's, else 32-true")
    add_options(parser)
    return parser.parse_intermixed_args()
