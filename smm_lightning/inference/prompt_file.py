"""A trained prompt on its own: what was learned, and how to build the rest around it again.

Needs neither Lightning nor Hydra. A file is data: it can only name classes of this package, by a
list of them, or of modules that the user trusts, and numbers for their arguments.
"""

import argparse
import json
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from smm_lightning.backbone import BackboneSpec
from smm_lightning.classifier import ReprogrammedClassifier, build_classifier, learned
from smm_lightning.errors import Problems, problem
from smm_lightning.files import write_atomically
from smm_lightning.mapping import LabelMapping
from smm_lightning.method import InputTransform
from smm_lightning.run.checkpoint import read_checkpoint
from smm_lightning.run.declared import check_values

FORMAT = "smm-lightning prompt 5"
_CONTRACTS: dict[str, type] = {
    "backbone": BackboneSpec,
    "method": InputTransform,
    "mapping": LabelMapping,
}


@dataclass(frozen=True)
class Prompt:
    """What was learned.

    Attributes:
        parts: class and arguments of backbone, method and mapping, and how images were decoded.
        class_names: of the target classes.
        backbone_sha256: of the frozen weights that it was learned for.
        weights: of the input transform and the label mapping.
    """

    parts: dict[str, dict[str, Any]]
    class_names: list[str]
    backbone_sha256: str
    weights: dict[str, Tensor]

    @property
    def facts(self) -> dict[str, str]:
        """What a file says beside the weights, as text."""
        content = {
            "parts": self.parts,
            "class_names": self.class_names,
            "backbone_sha256": self.backbone_sha256,
        }
        return {"format": FORMAT, **{name: json.dumps(value) for name, value in content.items()}}


def read_prompt(path: Path) -> Prompt:
    """From a ``.safetensors`` file, a checkpoint, or the folder of a run (its last checkpoint).

    Raises:
        UserError: If the file is missing, damaged, or of another kind.
    """
    if path.is_dir():
        path = path / "last.ckpt"
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    checkpoint = read_checkpoint(path)
    identity = checkpoint["identity"]
    if "mapping" not in checkpoint or "decoding" not in (checkpoint.get("parts") or {}):
        what = "is a checkpoint of another version, which says other things"
        raise problem(str(path), what, hint="force=true trains its run anew.")
    weights = learned(checkpoint["state_dict"])
    return Prompt(
        checkpoint["parts"], identity["class_names"], identity["backbone_sha256"], weights
    )


def _from_safetensors(path: Path) -> Prompt:
    if not path.is_file():
        raise problem(str(path), "no such file", hint="`smm export` makes one.")
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if facts.get("format") != FORMAT:
            what = "is no prompt of this version"
            hint = "`smm export <its run>` makes one; runs of older versions are trained anew."
            raise problem(str(path), what, facts.get("format"), hint)
        names = ("parts", "class_names", "backbone_sha256")
        parts, class_names, sha256 = (json.loads(facts[name]) for name in names)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise problem(str(path), f"is damaged ({type(error).__name__}: {error})") from error
    return Prompt(parts, class_names, sha256, weights)


def write_prompt(prompt: Prompt, path: Path, *, half: bool = False) -> None:
    """One ``.safetensors`` file, in one step.

    Args:
        prompt: to write.
        path: of the file.
        half: store float16: half the size, predictions differ by its rounding.

    Raises:
        OSError: If the file cannot be written.
    """
    weights = {
        name: (value.half() if half and value.dtype == torch.float32 else value).contiguous()
        for name, value in prompt.weights.items()
    }
    write_atomically(path, save(weights, prompt.facts))


def rebuild(
    prompt: Prompt, weights: str | None = None, trust: Collection[str] = (), **backbone: Any
) -> ReprogrammedClassifier:
    """The classifier, in eval mode.

    Args:
        prompt: what was learned.
        weights: a local file of the frozen weights, instead of their usual source.
        trust: names of modules outside this package whose classes the prompt may name; they are
            imported, which runs their code.
        backbone: other arguments of the backbone than when it was trained, such as ``fast_stem``.

    Raises:
        UserError: If a part cannot be built, or the frozen weights are others than in training.
    """
    node = {**prompt.parts["backbone"], **({"weights": weights} if weights else {}), **backbone}
    trusted = frozenset(trust)
    spec = _built("backbone", node, trusted)
    normalization = {"mean": spec.mean, "std": spec.std}
    node = prompt.parts["method"]
    method = _built("method", node, trusted, image_size=spec.image_size, **normalization)
    reads = _kind("mapping", prompt.parts["mapping"], trusted).reads
    mapping = partial(_built, "mapping", prompt.parts["mapping"], trusted)
    classifier = build_classifier(spec, method, mapping, prompt.class_names, reads=reads)
    frozen = classifier.backbone
    if frozen.sha256 != prompt.backbone_sha256:
        hint = "Name the file that it was trained with: weights=<file>."
        what = "these frozen weights are not those that the prompt was trained for"
        raise problem("backbone", what, frozen.sha256[:12], hint)
    # Half-precision files are read into float32 parts.
    expected = classifier.state_dict()
    try:
        classifier.load_state_dict(
            {name: value.to(expected[name].dtype) for name, value in prompt.weights.items()}
        )
    except (KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise problem("prompt", f"its weights do not fit its parts: {reason}") from error
    return classifier.eval()


def _kind(group: str, node: dict[str, Any], trusted: frozenset[str]) -> Any:
    """The class that a node names: of the group's package, or of a trusted module.

    Raises:
        UserError: If it names no such class.
    """
    target = str(node.get("_target_"))
    place, _, name = target.rpartition(".")
    if place != f"smm_lightning.{group}" and place not in trusted:
        hint = f"If you trust its author: --trust {place}." if place else ""
        raise problem(group, "the file names a class outside this package", target, hint)
    try:
        module = import_module(place)
    except ImportError as error:
        hint = "It must lie on PYTHONPATH."
        raise problem(group, f"its module cannot be imported ({error})", target, hint) from error
    public = place in trusted or name in module.__all__
    kind = getattr(module, name, None) if public else None
    if not (isinstance(kind, type) and issubclass(kind, _CONTRACTS[group])):
        raise problem(group, f"the file names no {_CONTRACTS[group].__name__}", target)
    return kind


def _built(group: str, node: dict[str, Any], trusted: frozenset[str], **arguments: Any) -> Any:
    """An instance of the class that a node names.

    Raises:
        UserError: If it names none, or has values that the class does not take.
    """
    kind = _kind(group, node, trusted)
    values = {key: value for key, value in node.items() if key != "_target_"}
    if "_target_" in json.dumps(values):  # looking at it would import what it names
        raise problem(group, "the file names a class within another", node["_target_"])
    problems = Problems()
    check_values(kind, values, group, problems, passed=arguments)
    problems.raise_if_any()
    return kind(**values, **arguments)


def device_of(name: str) -> torch.device:
    """``auto`` is a GPU where there is one.

    Raises:
        UserError: If PyTorch does not know it or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise problem("device", f"cannot be used: {str(error).splitlines()[0]}", name) from error


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of every command that builds a classifier from a file."""
    parser.add_argument("--weights", help="a local file of the frozen weights")
    trust = "a module outside this package whose classes the file may name; its code runs"
    parser.add_argument("--trust", metavar="MODULE", action="append", default=[], help=trust)
