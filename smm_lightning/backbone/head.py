"""A classifier as a body, which finds features, and a head, its last layer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smm_lightning.backbone.any_network import logits_in
from smm_lightning.errors import closest, problem


def split(
    network: nn.Module, images: Tensor, layer: str | None = None
) -> tuple[nn.Module, nn.Linear | None]:
    """Take the head off a network, in place, if body and head together are the network.

    They are not where the head is used twice, shares its weights, or its answer is changed later.

    Args:
        network: a classifier in eval mode.
        images: (B, 3, S, S) of random content, so that a difference shows.
        layer: name of the head in the network, where it must have one; ``None`` looks for it.

    Returns:
        The body, from images to features (B, D), and the head; or the whole network and ``None``.

    Raises:
        UserError: If ``layer`` is no linear layer, or is not the head.
    """
    if layer is not None:
        _require_linear(network, layer)
    with torch.no_grad():
        last, expected = _last_layer(network, images)
        name = layer or last
        if name is None:
            return network, None
        head = network.get_submodule(name)
        assert isinstance(head, nn.Linear)
        network.set_submodule(name, nn.Identity().eval())
        if _is_head_of(head, network, images, expected):
            return network, head
    network.set_submodule(name, head)
    if layer is not None:
        what = "the network's answer is not that of this layer alone"
        raise problem("backbone.classifier_layer", what, layer)
    return network, None


def _require_linear(network: nn.Module, layer: str) -> None:
    modules = dict(network.named_modules())
    if layer and isinstance(modules.get(layer), nn.Linear):
        return
    names = [name for name, module in modules.items() if name and isinstance(module, nn.Linear)]
    hint = closest(layer, names) or f"The last one is {names[-1]}." if names else ""
    raise problem("backbone.classifier_layer", "the network has no such linear layer", layer, hint)


def _last_layer(network: nn.Module, images: Tensor) -> tuple[str | None, Tensor]:
    """The linear layer whose output is the network's answer, or ``None``, and the answer."""
    outputs: dict[str, Tensor] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            outputs[name] = output

        return hook

    layers = [(name, m) for name, m in network.named_modules() if type(m) is nn.Linear and name]
    hooks = [layer.register_forward_hook(note(name)) for name, layer in layers]
    try:
        answer = logits_in(network(images))
    finally:
        for hook in hooks:
            hook.remove()
    return next((name for name, output in outputs.items() if output is answer), None), answer


def _is_head_of(head: nn.Linear, body: nn.Module, images: Tensor, expected: Tensor) -> bool:
    weights = {id(weight) for weight in head.parameters()}
    if any(id(weight) in weights for weight in body.parameters()):
        return False
    try:
        logits = head(logits_in(body(images)))
    except Exception:
        return False
    near = 1e-3 * expected.abs().max().item()
    return logits.shape == expected.shape and torch.allclose(logits, expected, rtol=0, atol=near)
