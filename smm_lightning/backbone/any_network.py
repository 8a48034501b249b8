"""Networks that were not made for this package, as plain functions from images to logits."""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor, nn

from smm_lightning.errors import problem


class LogitsOnly(nn.Module):
    """A network whose answer holds more than logits, reduced to these.

    Args:
        network: that returns an object with ``logits``, a dictionary with that key, or a tuple or
            list that begins with them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, source classes)."""
        logits: Tensor = logits_in(self.network(images))
        return logits


def logits_in(answer: Any) -> Any:
    """The logits in what a network returned; the answer itself where it is a tensor."""
    if isinstance(answer, Tensor):
        return answer
    if isinstance(answer, Mapping):
        return answer.get("logits")
    if hasattr(answer, "logits"):
        return answer.logits
    return answer[0] if isinstance(answer, tuple | list) and answer else None


class UsualInput(NamedTuple):
    """What a network was trained with, for images in [0, 1].

    Attributes:
        image_size: side S, in pixels.
        mean: of its normalisation.
        std: likewise.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def usual_input(network: nn.Module) -> UsualInput | None:
    """Of a network of timm, which says so itself; ``None`` for all others."""
    facts = getattr(network, "pretrained_cfg", None)
    if not isinstance(facts, Mapping) or not {"input_size", "mean", "std"} <= facts.keys():
        return None
    return UsualInput(facts["input_size"][-1], tuple(facts["mean"]), tuple(facts["std"]))


def source_names(network: nn.Module, classes: int) -> list[str]:
    """Names of the source classes, where timm or transformers know them; else their numbers.

    Args:
        network: as it was handed over.
        classes: how many it has.
    """
    labels = getattr(getattr(network, "config", None), "id2label", None)
    if isinstance(labels, Mapping) and set(labels) == set(range(classes)):
        return [str(labels[number]) for number in range(classes)]
    facts = getattr(network, "pretrained_cfg", None)
    if isinstance(facts, Mapping):
        named = facts.get("label_names")
        if named and len(named) == classes:
            return [str(name) for name in named]
        if subset := infer_imagenet_subset(network):
            known = ImageNetInfo(subset)
            if known.num_classes() == classes:
                return [known.index_to_description(number) for number in range(classes)]
    return [str(number) for number in range(classes)]


def place_of(network: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and precision of a network; CPU and float32 where it has no weights."""
    for weight in chain(network.parameters(), network.buffers()):
        if weight.is_floating_point():
            return weight.device, weight.dtype
    return torch.device("cpu"), torch.float32


def taken_over(
    network: nn.Module, image_size: int, *, in_place: bool = False
) -> tuple[nn.Module, list[str]]:
    """A network that was handed over as one that returns logits alone, and its source classes.

    Args:
        network: any classifier.
        image_size: see :func:`as_classifier`.
        in_place: take the network itself, not a copy.

    Raises:
        UserError: See :func:`as_classifier`.
    """
    copied = isinstance(network, nn.Module) and not in_place
    own = copy.deepcopy(network) if copied else network
    classifier, classes = as_classifier(own, image_size)
    return classifier, source_names(own, classes)


def as_classifier(network: nn.Module, image_size: int) -> tuple[nn.Module, int]:
    """A network that returns logits alone, in eval mode, and its number of source classes.

    Args:
        network: any classifier.
        image_size: side S of its input, in pixels.

    Raises:
        UserError: If it does not take images of that size, does not return finite logits (B, S),
            or passes no gradient to its input.
    """
    if not isinstance(network, nn.Module):
        raise problem("network", "must be a torch.nn.Module", type(network).__name__)
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
        raise problem("image_size", "must be a whole number above 0", image_size)
    try:
        network.eval().requires_grad_(requires_grad=False)
    except (RuntimeError, AttributeError) as error:  # scripted or quantized
        what = f"cannot be frozen ({str(error).splitlines()[0]})"
        raise problem(
            "network", what, hint="Hand over the network that it was made from."
        ) from error
    # Two images: with one, a network that returns (S,) or means over the batch would pass.
    device, dtype = place_of(network)
    probe = torch.zeros(2, 3, image_size, image_size, device=device, dtype=dtype)
    try:
        with torch.enable_grad():  # who calls may be in no_grad
            answer = network(probe.requires_grad_())
    except Exception as error:  # layers raise what they like
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = f"cannot classify images of shape {tuple(probe.shape)} ({reason})"
        raise problem("network", what, hint="Give the image_size that it takes.") from error
    logits = logits_in(answer)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(probe):  # noqa: PLR2004
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(answer).__name__
        raise problem("network", "must return logits of shape (images, source classes)", shape)
    if not logits.is_floating_point() or not logits.isfinite().all():
        raise problem("network", "must return finite floating-point logits", logits.dtype)
    if not logits.requires_grad:
        what = "passes no gradient to its input, so no prompt can be trained in front of it"
        raise problem("network", what, hint="Is there a detach() or no_grad() in its forward?")
    return network if logits is answer else LogitsOnly(network), logits.shape[1]
