"""A trained prompt on its own: what was learned, and how to build the rest around it again.

Needs neither Lightning nor Hydra. A file is data: it can only name classes of this package, by a
list of them, or of modules that the user trusts, and numbers for their arguments.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from smm_lightning.dataset.batch import checked_names
from smm_lightning.errors import Problems, one_line, problem
from smm_lightning.files import write_atomically
from smm_lightning.run.checkpoint import read_checkpoint, require_schema
from smm_lightning.run.result import prompt_card, read_result
from smm_lightning.text import parsed_json

_KIND = "smm-lightning prompt"
FORMAT = f"{_KIND} 8"
FILE = "model.safetensors"
_FACTS = ("parts", "class_names", "backbone_sha256", "card")
_NO_NUMBERS = (math.inf, -math.inf)
_PARTS = ("backbone", "method", "mapping", "adapter", "decoding")


@dataclass(frozen=True)
class Prompt:
    """What was learned.

    Attributes:
        parts: class and arguments of backbone, method, mapping and adapter, and how images were
            decoded.
        class_names: of the target classes.
        backbone_sha256: of the frozen weights that it was learned for.
        weights: of input transform, label mapping and adapter.
        card: how it was trained and how good it is, for people; see :func:`prompt_card`.
    """

    parts: dict[str, dict[str, Any]]
    class_names: list[str]
    backbone_sha256: str
    weights: dict[str, Tensor]
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What a file says beside the weights."""
        return {name: getattr(self, name) for name in _FACTS}

    def load_into(self, classifier: Any) -> None:
        """Give a classifier what was learned, in whatever precision it is stored.

        Args:
            classifier: whose ``state_dict`` has the same names.

        Raises:
            UserError: If weights do not fit, or no classifier that can answer comes of them.
        """
        expected = classifier.state_dict()
        for name in self.weights.keys() & expected.keys():
            if self.weights[name].is_floating_point() != expected[name].is_floating_point():
                what = f"{name} must be of {expected[name].dtype}"
                raise problem("prompt", what, str(self.weights[name].dtype))
        try:
            classifier.load_state_dict(
                {
                    name: value.to(expected[name].dtype) if name in expected else value
                    for name, value in self.weights.items()
                }
            )
        except RuntimeError as error:
            reason = " ".join(str(error).splitlines()[-1].split())[:300]
            raise problem("prompt", f"its weights do not fit its parts ({reason})") from error
        if not classifier.fitted:
            hint = "It was written before the first epoch of its training."
            raise problem("prompt", "has no label mapping or no temperature yet", hint=hint)


def read_prompt(path: Path) -> Prompt:
    """From a file, or a folder.

    Args:
        path: a ``.safetensors`` file, a checkpoint, the folder of a run (its last checkpoint), or
            one that ``save_pretrained`` wrote.

    Raises:
        UserError: If the file is missing, damaged, or of another kind.
    """
    if path.is_dir():
        there = [name for name in ("last.ckpt", FILE) if (path / name).is_file()]
        if not there:
            raise problem(str(path), f"holds no last.ckpt of a run and no {FILE}")
        path = path / there[0]
    if path.suffix == ".safetensors":
        return _from_safetensors(path)
    checkpoint = read_checkpoint(path)
    require_schema(checkpoint, str(path), "force=true trains its run anew.")
    identity, weights = checkpoint["identity"], learned(checkpoint["state_dict"])
    facts = checkpoint["parts"], identity.get("class_names"), identity.get("backbone_sha256")
    result = read_result(path.parent) if path.name == "last.ckpt" else None
    return _checked(path, weights, *facts, prompt_card(result) if result else {})


def is_prompt(path: Path) -> bool:
    """Whether a ``.safetensors`` file is of this program, of whatever version."""
    try:
        with safe_open(path, framework="pt") as file:
            return str((file.metadata() or {}).get("format")).startswith(_KIND)
    except (SafetensorError, OSError):
        return False


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
    path: Path, weights: dict[str, Tensor], parts: Any, class_names: Any, sha256: Any, card: Any
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
    with problems.caught():
        require_card(card, where)
    for name, value in weights.items():
        finite = not value.is_floating_point() or bool(value.isfinite().all())
        # A temperature that is still to be fitted is NaN.
        problems.require(finite or name == "temperature", where, f"{name} holds NaN or infinity")
    with problems.caught():
        class_names = checked_names(class_names)
    if problems.lines:
        problems.lines = [f"{where}: {line.removeprefix(f'{where}: ')}" for line in problems.lines]
        raise problems.as_error()
    return Prompt(parts, class_names, sha256, weights, card)


def require_card(card: Any, where: str) -> None:
    """A card holds texts and finite numbers by names.

    Args:
        card: see :class:`Prompt`.
        where: the file or field, for the message.

    Raises:
        UserError: If it is something else.
    """
    plain = isinstance(card, dict) and all(
        isinstance(name, str) and isinstance(value, str | int | float) and value not in _NO_NUMBERS
        for name, value in card.items()
    )
    if not plain or any(value != value for value in card.values()):  # noqa: PLR0124 - NaN
        raise problem(where, "its card must hold texts and finite numbers, by names")


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
    facts = {name: json.dumps(value) for name, value in prompt.facts.items()}
    sealed = {"format": FORMAT, **facts, "sha256": _sha256(facts, weights)}
    write_atomically(path, save(weights, sealed))


def learned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the state of a LightningModule: that of its classifier, under the classifier's names."""
    prefix = "classifier."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
