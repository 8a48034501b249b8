"""Weights from a file, a package or the network, with messages that say what to do."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from smm_lightning.errors import problem
from smm_lightning.files import at

Weights = Mapping[str, Tensor]


def require_file(path: str | None) -> Path | None:
    """The local weight file that the user named.

    Raises:
        UserError: If it does not exist.
    """
    if path is None:
        return None
    file = at(path)
    if not file.is_file():
        raise problem(
            "backbone.weights", "no such file", str(file), "Give the path of a weight file."
        )
    return file


def require_sha256(file: Path, expected: str) -> None:
    """Weights that come with a package are those that were tested, whoever packed it.

    Raises:
        UserError: If the file is another one.
    """
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != expected:
        what = f"is not the file with the checksum {expected[:12]} that this program was made for"
        hint = "Install the package again, in the version of pyproject.toml."
        raise problem(f"backbone: {file}", what, digest[:12], hint)


def read_weights(file: Path) -> Weights:
    """Read a state dict of tensors; nothing in the file is executed.

    Raises:
        UserError: If the file is damaged, or not a plain state dict (a web page, a whole model).
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # every library has its own for a broken file
        raise problem(
            f"backbone.weights: {file}",
            "is no readable file of tensors; it may be truncated, or a web page saved by mistake",
            hint="Download it again.",
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise problem(f"backbone.weights: {file}", "holds no state dict of tensors")
    return state


def load_weights(network: nn.Module, weights: Weights, origin: str) -> None:
    """Load ``weights`` into ``network``, all of them.

    Raises:
        UserError: If names or shapes do not fit the architecture.
    """
    expected = network.state_dict()
    # Old files lack BatchNorm's counter, which eval mode never reads.
    missing = [k for k in expected if k not in weights and not k.endswith("num_batches_tracked")]
    unknown = [name for name in weights if name not in expected]
    shapes = [n for n in expected if n in weights and expected[n].shape != weights[n].shape]
    if missing or unknown or shapes:
        first = (missing + unknown + shapes)[0]
        raise problem(
            f"backbone.weights: {origin}",
            f"belongs to another architecture: {len(missing)} tensors missing, {len(unknown)} "
            f"unknown, {len(shapes)} of another shape, such as '{first}'",
            hint="Choose the backbone that the file was made for.",
        )
    network.load_state_dict(weights, strict=False)


def fetched(load: Callable[[], nn.Module], source: str, place: str) -> nn.Module:
    """Run ``load``, which may download.

    Args:
        load: builds the network with its weights.
        source: which file comes from where, for the message.
        place: where a file fetched by hand belongs, for the message.

    Raises:
        UserError: If the download fails.
    """
    try:
        return load()
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()
        raise problem(
            "backbone",
            f"its weights could not be fetched ({reason[-1] if reason else type(error).__name__})",
            hint=f"The file is {source}. Fetch it on a machine with a network and either put it at "
            f"{place} or name it with backbone.weights=<file>; backbone.pretrained=false takes "
            "random weights.",
        ) from error
