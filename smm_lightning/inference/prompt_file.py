"""A trained prompt on its own: what was learned, and how to build the rest around it again.

Needs neither Lightning nor Hydra. A file is data: it can only name classes of this package, by a
list of them, or of modules that the user trusts, and numbers for their arguments.
"""

import argparse
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from smm_lightning.classifier import ReprogrammedClassifier, learned
from smm_lightning.dataset.batch import checked_names
from smm_lightning.errors import Problems, one_line, problem
from smm_lightning.files import write_atomically
from smm_lightning.inference.parts import TrustedParts, load_learned
from smm_lightning.run.checkpoint import read_checkpoint, require_schema
from smm_lightning.text import parsed_json

FORMAT = "smm-lightning prompt 6"
_FACTS = ("parts", "class_names", "backbone_sha256")
_PARTS = ("backbone", "method", "mapping", "decoding")


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
        return {"format": FORMAT, **{name: json.dumps(getattr(self, name)) for name in _FACTS}}


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
    require_schema(checkpoint, str(path), "force=true trains its run anew.")
    identity, weights = checkpoint["identity"], learned(checkpoint["state_dict"])
    facts = checkpoint["parts"], identity.get("class_names"), identity.get("backbone_sha256")
    return _checked(path, weights, *facts)


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
        contents = [parsed_json(facts[name]) for name in _FACTS]
        if _sha256(facts, weights) != facts["sha256"]:
            raise ValueError("its content is not what was written")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise problem(str(path), f"is damaged ({type(error).__name__}: {error})") from error
    return _checked(path, weights, *contents)


def _checked(
    path: Path, weights: dict[str, Tensor], parts: Any, class_names: Any, sha256: Any
) -> Prompt:
    """What a file says, if it can be true.

    Raises:
        UserError: If it says what no prompt says.
    """
    problems, where = Problems(), str(path)
    try:
        parts = parsed_json(json.dumps(parts))  # of a checkpoint, which may hold more than JSON
    except (TypeError, ValueError, RecursionError) as error:
        raise problem(where, f"its parts are no plain values ({one_line(error)})") from error
    named = isinstance(parts, dict) and all(isinstance(parts.get(n), dict) for n in _PARTS)
    problems.require(named, where, f"must name its {', '.join(_PARTS)} with their arguments")
    what = "does not say which frozen weights it was trained for"
    problems.require(isinstance(sha256, str), where, what, sha256)
    for name, value in weights.items():
        finite = not value.is_floating_point() or bool(value.isfinite().all())
        # A temperature that is still to be fitted is NaN.
        problems.require(finite or name == "temperature", where, f"{name} holds NaN or infinity")
    with problems.caught():
        class_names = checked_names(class_names)
    if problems.lines:
        problems.lines = [f"{where}: {line.removeprefix(f'{where}: ')}" for line in problems.lines]
        raise problems.as_error()
    return Prompt(parts, class_names, sha256, weights)


def _sha256(facts: Mapping[str, str], weights: Mapping[str, Tensor]) -> str:
    """Of everything in a file: a flipped bit of it is not seen otherwise."""
    digest = hashlib.sha256("\n".join(facts[name] for name in _FACTS).encode())
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
    facts = prompt.facts
    write_atomically(path, save(weights, {**facts, "sha256": _sha256(facts, weights)}))


def rebuild(
    prompt: Prompt, weights: str | None = None, trust: Collection[str] = (), **backbone: Any
) -> ReprogrammedClassifier:
    """The classifier, in eval mode.

    Args:
        prompt: what was learned.
        weights: a local file of the frozen weights, instead of their usual source.
        trust: see :class:`TrustedParts`.
        backbone: other arguments of the backbone than when it was trained, such as ``fast_stem``.

    Raises:
        UserError: If a part cannot be built, or the frozen weights are others than in training.
    """
    others = {**({"weights": weights} if weights else {}), **backbone}
    classifier = TrustedParts(trust).classifier(prompt.parts, prompt.class_names, **others)
    require_backbone(classifier, prompt)
    load_learned(classifier, prompt.weights)
    images = torch.full((1, 3, classifier.input_size, classifier.input_size), 0.5)
    if not classifier.probabilities(images).isfinite().all():
        raise problem("prompt", "its answers are NaN", hint="The file is damaged.")
    return classifier.eval()


def require_backbone(classifier: ReprogrammedClassifier, prompt: Prompt) -> None:
    """The frozen weights are those that a prompt was trained for.

    Raises:
        UserError: If they are others.
    """
    if (sha256 := classifier.backbone.sha256) != prompt.backbone_sha256:
        hint = "Name the file that it was trained with: weights=<file>."
        what = "these frozen weights are not those that the prompt was trained for"
        raise problem("backbone", what, sha256[:12], hint)


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
    add_trust(parser)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Of every command that builds parts which a file names."""
    trust = "a module outside this package whose classes the file may name; its code runs"
    parser.add_argument("--trust", metavar="MODULE", action="append", default=[], help=trust)
