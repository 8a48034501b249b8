"""What of the backbone itself is trained: nothing, low-rank corrections of layers, or all of it."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from smm_lightning.backbone.any_network import place_of
from smm_lightning.device import AUTOCAST, at_least_float32
from smm_lightning.errors import problem
from smm_lightning.ranges import Count, Reads, Seed

# Names of query and value layers in timm and transformers; `qkv` computes all three in one.
QUERY_AND_VALUE = r"(.*\.)?(qkv|q|v|query|value|q_proj|v_proj|to_q|to_v)"
_FUSED = "qkv"


class TrainedPart(nn.Module):
    """What an adapter trains of a backbone; its ``state_dict()`` holds exactly that.

    In eval mode always: BatchNorm and dropout of a pre-trained network stay as they are. In float32
    or better, whatever the precision of the rest.
    """

    @override
    def train(self, mode: bool = True) -> Self:
        return super().train(mode=False)

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(at_least_float32(fn), recurse)  # type: ignore[no-untyped-call]
        return self


class Adapter(ABC):
    """Contract of an adapter: its settings, and how it takes hold of a network.

    Attributes:
        whole: every weight is trained, so none may be folded or replaced.
    """

    whole: ClassVar[bool] = False

    @abstractmethod
    def attach(self, body: nn.Module, head: nn.Linear | None, reads: Reads) -> TrainedPart | None:
        """Make a part of a frozen network trainable, in place.

        Args:
            body: from images to features.
            head: from features to source logits.
            reads: what is asked of the network; without ``logits`` the head is not used.

        Returns:
            What is trained; ``None``: nothing.

        Raises:
            UserError: If the network has no such part.
        """


@dataclass(frozen=True)
class NoAdapter(Adapter):
    """The network stays as it is: visual reprogramming."""

    @override
    def attach(self, body: nn.Module, head: nn.Linear | None, reads: Reads) -> None:
        return None


@dataclass(frozen=True)
class FineTuning(Adapter):
    """Every weight is trained, those of BatchNorm included, whose statistics stay."""

    whole: ClassVar[bool] = True

    @override
    def attach(self, body: nn.Module, head: nn.Linear | None, reads: Reads) -> TrainedPart:
        trained = TrainedPart()
        trained.body = body
        if head is not None and reads == "logits":
            trained.head = head
        if place_of(body)[1] in AUTOCAST.values():
            trained.float()
        for module in trained.modules():
            for name, buffer in module.named_buffers(recurse=False):  # facts, not trained
                module.register_buffer(name, buffer, persistent=False)
            if isinstance(module, nn.BatchNorm2d):
                module.register_load_state_dict_pre_hook(_without_counter)
        return trained


def _without_counter(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """BatchNorm adds its counter to a state that it takes for one of an old version."""
    state.pop(f"{prefix}num_batches_tracked", None)


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
    def attach(self, body: nn.Module, head: nn.Linear | None, reads: Reads) -> TrainedPart:
        linear = {n: m for n, m in body.named_modules() if type(m) is nn.Linear and n}
        chosen = [name for name in linear if re.fullmatch(self.layers, name)]
        if not chosen:
            what = "the network has no linear layers of such names"
            names = ", ".join(sorted({re.sub(r"\d+", "<n>", name) for name in linear})[:8])
            hint = f"It has {names}." if names else "It has none but its last: use adapter=full."
            raise problem("adapter.layers", what, self.layers, hint)
        trained, random = TrainedPart(), torch.Generator().manual_seed(self.seed)
        for name in chosen:
            layer, thirds = linear[name], 3 if name.split(".")[-1] == _FUSED else 1
            if layer.out_features % thirds:
                what = "cannot be divided into query, key and value"
                raise problem("adapter.layers", what, name)
            pairs = nn.ModuleList(
                LowRankPair(layer, layer.out_features // thirds, self.rank, random)
                for _ in range(min(thirds, 2))
            )
            trained.add_module(name.replace(".", "/"), pairs)
            body.set_submodule(name, CorrectedLinear(layer, pairs, self.scale).eval())
        return trained


class LowRankPair(nn.Module):
    """B A of a correction.

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
        self.down = nn.Parameter(first.to(layer.weight.device))
        self.up = nn.Parameter(torch.zeros(outputs, rank, device=layer.weight.device))

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) to (..., outputs)."""
        low = functional.linear(inputs, self.down.to(inputs.dtype))
        return functional.linear(low, self.up.to(low.dtype))


class CorrectedLinear(nn.Module):
    """A frozen linear layer with corrections of its first and, if there are two, its last outputs.

    Args:
        layer: the frozen one.
        pairs: of corrections; no submodules here, because :class:`TrainedPart` holds them.
        scale: of the corrections.
    """

    pairs: nn.ModuleList

    def __init__(self, layer: nn.Linear, pairs: nn.ModuleList, scale: float) -> None:
        super().__init__()
        self.layer = layer
        self.scale = scale
        object.__setattr__(self, "pairs", pairs)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        outputs: Tensor = self.layer(inputs)
        corrections = [self.scale * pair(inputs).to(outputs.dtype) for pair in self.pairs]
        return outputs + self._in_place(corrections)

    def merged(self) -> nn.Linear:
        """One layer that computes the same."""
        device = self.layer.weight.device
        unit = torch.eye(self.layer.in_features, device=device)
        with torch.no_grad():
            corrections = [self.scale * pair(unit) for pair in self.pairs]
            change = self._in_place(corrections).T.to(self.layer.weight.dtype)
            self.layer.weight += change
        return self.layer

    def _in_place(self, corrections: Iterable[Tensor]) -> Tensor:
        """(..., out) with the corrections at their outputs, and 0 between them."""
        parts = list(corrections)
        between = self.layer.out_features - sum(part.shape[-1] for part in parts)
        if between:
            parts.insert(1, parts[0].new_zeros(*parts[0].shape[:-1], between))
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0]


def merge(network: nn.Module) -> None:
    """Put all corrections into the layers that they correct, in place."""
    corrected = [name for name, m in network.named_modules() if isinstance(m, CorrectedLinear)]
    for name in corrected:
        layer = network.get_submodule(name)
        assert isinstance(layer, CorrectedLinear)
        network.set_submodule(name, layer.merged())
