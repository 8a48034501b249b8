"""A classifier as a body, which finds features, and a head, its last layer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smm_lightning.backbone.any_network import logits_in


def name_of_head(network: nn.Module, images: Tensor) -> str | None:
    """The linear layer whose output is the network's answer; ``None`` if there is no such layer.

    Args:
        network: a classifier in eval mode.
        images: (B, 3, S, S) to ask it about, once.
    """
    outputs: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            outputs[name] = output

        return hook

    layers = [(name, m) for name, m in network.named_modules() if type(m) is nn.Linear and name]
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers]
    try:
        with torch.no_grad():
            answer = logits_in(network(images))
    finally:
        for hook in hooks:
            hook.remove()
    return next((name for name, output in outputs.items() if output is answer), None)


def split(network: nn.Module, images: Tensor) -> tuple[nn.Module, nn.Linear | None]:
    """Take the head off a network, in place.

    Args:
        network: a classifier in eval mode.
        images: see :func:`name_of_head`.

    Returns:
        The body, from images to features (B, D), and the head; or the whole network and ``None``.
    """
    name = name_of_head(network, images)
    if name is None:
        return network, None
    head = network.get_submodule(name)
    assert isinstance(head, nn.Linear)
    network.set_submodule(name, nn.Identity().eval())
    return network, head
