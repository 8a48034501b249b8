"""What of the backbone itself is trained: nothing, low-rank corrections of layers, or all of it."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le
from timm.layers import Attention
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn
from torch.nn import Parameter, functional
from typing_extensions import override

from smm_lightning.backbone.any_network import place_of
from smm_lightning.device import AUTOCAST, AtLeastFloat32
from smm_lightning.errors import problem
from smm_lightning.ranges import Count, Reads, Seed

# Names of query and value layers in timm and transformers; `qkv` computes all three in one.
QUERY_AND_VALUE = r"(.*\.)?(qkv|q|v|query|value|q_proj|v_proj|to_q|to_v)"
_FUSED = "qkv"
# Whose `qkv` answers with all queries, then all keys, then all values; others mix them by heads.
_IN_THIRDS = (Attention, WindowAttention)


class TrainedPart(AtLeastFloat32):
    """The weights of a backbone that an adapter trains, and nothing else; in float32 or better.

    Args:
        weights: by their names in the backbone.
    """

    def __init__(self, weights: Mapping[str, Parameter]) -> None:
        super().__init__()
        for name, weight in weights.items():
            self.register_parameter(name.replace(".", "/"), weight)


class Adapter(ABC):
    """Contract of an adapter: its settings, and how it takes hold of a network.

    Attributes:
        whole: every weight is trained, so none may be folded or replaced.
    """

    whole: ClassVar[bool] = False

    @abstractmethod
    def attach(self, body: nn.Module, head: nn.Linear | None, reads: Reads) -> dict[str, Parameter]:
        """Make a part of a frozen network trainable, in place.

        Args:
            body: from images to features.
            head: from features to source logits.
            reads: what is asked of the network; without ``logits`` the head is not used.

        Returns:
            What is trained, by names.

        Raises:
            UserError: If the network has no such part.
        """


@dataclass(frozen=True)
class NoAdapter(Adapter):
    """The network stays as it is: visual reprogramming."""

    @override
    def attach(self, body: nn.Module, head: nn.Linear | None, reads: Reads) -> dict[str, Parameter]:
        return {}


@dataclass(frozen=True)
class FineTuning(Adapter):
    """Every weight is trained, those of BatchNorm included, whose statistics stay."""

    whole: ClassVar[bool] = True

    @override
    def attach(self, body: nn.Module, head: nn.Linear | None, reads: Reads) -> dict[str, Parameter]:
        parts = {"body": body}
        if head is not None and reads == "logits":
            parts["head"] = head
        for part in parts.values():
            if place_of(part)[1] in AUTOCAST.values():
                part.float()
        return {
            f"{place}.{name}": weight
            for place, part in parts.items()
            for name, weight in part.named_parameters()
        }


@dataclass(frozen=True)
class LoRA(Adapter):
    """Low-rank corrections beside frozen linear layers: W x + scale · B A x.

    A (r, in) begins as PyTorch's own Kaiming-uniform weights, B (out, r) with 0, so that training
    begins with the frozen network; there is no bias. A layer ``qkv``, which computes query, key and
    value at once, has a correction for its first and one for its last third: keys stay.

    Source: Hu et al., *LoRA*, ICLR 2022, on query and value; the paper's Table 13 has rank 6.

    Args:
        rank: r.
        scale: of the correction; elsewhere it is written as alpha / r.
        layers: a regular expression for whole names of linear layers.
        seed: of A.

    Raises:
        UserError: If the expression is none.
    """

    rank: Count = 6
    scale: Annotated[float, Gt(0), Le(1e3)] = 1.0
    layers: str = QUERY_AND_VALUE
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Check the expression."""
        try:
            re.compile(self.layers)
        except re.error as error:
            what = f"is no regular expression ({error})"
            raise problem("adapter.layers", what, self.layers) from None

    @override
    def attach(self, body: nn.Module, head: nn.Linear | None, reads: Reads) -> dict[str, Parameter]:
        trained: dict[str, Parameter] = {}
        random = torch.Generator().manual_seed(self.seed)
        done: dict[nn.Linear, CorrectedLinear] = {}
        for name, layer in self._chosen(body).items():
            if layer not in done:
                thirds = 3 if _is_fused(body, name) else 1
                outputs = layer.out_features // thirds
                pairs = [
                    LowRankPair(layer, outputs, self.rank, random) for _ in range(min(thirds, 2))
                ]
                done[layer] = CorrectedLinear(layer, pairs, self.scale)
                for number, pair in enumerate(pairs):
                    trained |= {f"{name}.{number}.{n}": w for n, w in pair.named_parameters()}
            body.set_submodule(name, done[layer].eval())
        return trained

    def _chosen(self, body: nn.Module) -> dict[str, nn.Linear]:
        """The layers by all their names: one that is used twice is corrected in both places."""
        modules = body.named_modules(remove_duplicate=False)
        linear = {name: m for name, m in modules if type(m) is nn.Linear and name}
        chosen = {name: m for name, m in linear.items() if re.fullmatch(self.layers, name)}
        if not chosen:
            what = "the network has no linear layers of such names"
            names = ", ".join(sorted({re.sub(r"\d+", "<n>", name) for name in linear})[:8])
            hint = f"It has {names}." if names else "It has none but its last: use adapter=full."
            raise problem("adapter.layers", what, self.layers, hint)
        layers = set(chosen.values())
        return {name: m for name, m in linear.items() if m in layers}


def _is_fused(body: nn.Module, name: str) -> bool:
    """Whether a layer answers with queries, keys and values, a third each.

    Raises:
        UserError: If it answers with them in an order that is not known.
    """
    place, _, last = name.rpartition(".")
    if last != _FUSED:
        return False
    parent = body.get_submodule(place)
    if not isinstance(parent, _IN_THIRDS):
        what = "query, key and value lie in an unknown order in its qkv"
        hint = "Name other layers, or use adapter=full."
        raise problem("adapter.layers", what, type(parent).__name__, hint)
    return True


class LowRankPair(AtLeastFloat32):
    """B A of a correction, in float32 or better.

    Args:
        layer: that is corrected, whose device it takes.
        outputs: rows of B.
        rank: r.
        random: to draw A with.
    """

    def __init__(self, layer: nn.Linear, outputs: int, rank: int, random: torch.Generator) -> None:
        super().__init__()
        # kaiming_uniform with sqrt(5), as in the published code: the bound of PyTorch's layers.
        bound = layer.in_features**-0.5
        first = torch.empty(rank, layer.in_features).uniform_(-bound, bound, generator=random)
        self.down = Parameter(first.to(layer.weight.device))
        self.up = Parameter(torch.zeros(outputs, rank, device=layer.weight.device))

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) to (..., outputs)."""
        low = functional.linear(inputs, self.down.to(inputs.dtype))
        return functional.linear(low, self.up.to(low.dtype))


class CorrectedLinear(nn.Module):
    """A frozen linear layer with corrections of its first and, if there are two, its last outputs.

    Args:
        layer: the frozen one.
        pairs: of corrections.
        scale: of the corrections.
    """

    def __init__(self, layer: nn.Linear, pairs: list[LowRankPair], scale: float) -> None:
        super().__init__()
        self.layer = layer
        self.pairs = nn.ModuleList(pairs)
        self.scale = scale

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        outputs: Tensor = self.layer(inputs)
        corrections = [self.scale * pair(inputs).to(outputs.dtype) for pair in self.pairs]
        between = outputs.shape[-1] - sum(part.shape[-1] for part in corrections)
        if between:
            corrections.insert(1, outputs.new_zeros(*outputs.shape[:-1], between))
        return outputs + (torch.cat(corrections, dim=-1) if corrections[1:] else corrections[0])

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One layer that computes the same; the frozen one may be shared, and stays as it is."""
        weight, bias = self.layer.weight.clone(), self.layer.bias
        outputs, inputs = weight.shape
        place = {"device": weight.device, "dtype": weight.dtype}
        plain = nn.Linear(inputs, outputs, bias=bias is not None, **place)
        for number, pair in enumerate(self.pairs):
            change = self.scale * (pair.up @ pair.down)  # type: ignore[operator]
            rows = slice(-len(change), None) if number else slice(len(change))
            weight[rows] += change.to(weight.dtype)
        plain.weight.copy_(weight)
        if bias is not None:
            plain.bias.copy_(bias)
        return plain.requires_grad_(requires_grad=False)


def merge(network: nn.Module) -> None:
    """Put all corrections into the layers that they correct, in place."""
    done: dict[nn.Module, nn.Linear] = {}
    for name, layer in list(network.named_modules(remove_duplicate=False)):
        if isinstance(layer, CorrectedLinear):
            done[layer] = done.get(layer) or layer.merged()
            network.set_submodule(name, done[layer].eval())
