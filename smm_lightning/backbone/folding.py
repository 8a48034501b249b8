"""A frozen network in eval mode, made cheaper without changing its function."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(network: nn.Module, example: Tensor) -> int:
    """Fold every BatchNorm that reads a convolution's output, alone, into that convolution.

    The pairs are found by running the network once and watching which tensor goes where, so it
    works for torchvision and timm models alike, without tracing.

    Layers that are trained are left as they are: folded, they would be trained no longer.

    Args:
        network: in eval mode; changed in place.
        example: an input, (1, 3, S, S).

    Returns:
        How many BatchNorm layers were folded.
    """
    pairs = [
        pair
        for pair in _convolution_before_norm(network, example)
        if all(is_frozen(network.get_submodule(name)) for name in pair)
    ]
    for convolution, norm in pairs:
        conv = network.get_submodule(convolution)
        bn = network.get_submodule(norm)
        fused = fuse_conv_bn_eval(conv, bn)  # type: ignore[type-var, arg-type]
        conv.weight = nn.Parameter(fused.weight, requires_grad=False)  # type: ignore[arg-type]
        conv.bias = nn.Parameter(fused.bias, requires_grad=False)  # type: ignore[arg-type]
        # timm's BatchNormAct2d is a BatchNorm with its activation inside.
        network.set_submodule(norm, getattr(bn, "act", nn.Identity()).eval())
    for module in network.modules():
        # In place, ReLU6 first clones its input for the backward pass: slower than out of place.
        if isinstance(module, nn.Hardtanh):
            module.inplace = False
    return len(pairs)


def is_frozen(module: nn.Module) -> bool:
    """Whether nothing in it is trained."""
    return not any(weight.requires_grad for weight in module.parameters())


def _convolution_before_norm(network: nn.Module, example: Tensor) -> list[tuple[str, str]]:
    """Names of (convolution, BatchNorm) where the second reads what only the first has written."""
    written: dict[int, tuple[str, Tensor]] = {}
    pairs: list[tuple[str, str]] = []
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):

            def note(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                written[id(output)] = (name, output)  # holding the tensor keeps its id unique

            handles.append(module.register_forward_hook(note))
        elif isinstance(module, nn.BatchNorm2d):

            def pair(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                if id(inputs[0]) in written:
                    pairs.append((written[id(inputs[0])][0], name))

            handles.append(module.register_forward_pre_hook(pair))
    with torch.no_grad():
        network(example)
    for handle in handles:
        handle.remove()  # hooks would stop torch.compile and torch.export
    return _used_once(pairs)


def _used_once(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave out layers that take part twice: a shared layer cannot be folded for one use alone."""
    names = [name for pair in pairs for name in pair]
    return [pair for pair in pairs if all(names.count(name) == 1 for name in pair)]
