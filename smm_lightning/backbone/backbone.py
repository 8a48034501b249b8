"""f_P: the pre-trained classifier, frozen but for what an adapter trains of it."""

import hashlib
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from smm_lightning.backbone.adapter import Adapter, NoAdapter, TrainedPart, merge
from smm_lightning.backbone.any_network import place_of
from smm_lightning.backbone.folding import fold_batch_norm
from smm_lightning.backbone.head import split
from smm_lightning.backbone.stem import replace_stems, restore_stems
from smm_lightning.device import AUTOCAST, at_least_float32
from smm_lightning.errors import UserError, one_line, problem
from smm_lightning.ranges import Reads


class Backbone(nn.Module):
    """A frozen classifier in eval mode: (B, 3, S, S) to (B, source classes).

    It is taken apart into its last layer, the head, and the body before it. The head computes in
    float32 or better under every precision: among a thousand logits in bfloat16, the two largest
    are often equal, and the mapping is counted from the largest.

    Neither is registered as a submodule. So they are absent from ``parameters()`` and
    ``state_dict()`` (checkpoints hold what is trained alone), and ``train()`` cannot reach their
    BatchNorm or dropout. They still follow ``to()``, ``cuda()`` and the like.

    Args:
        network: any classifier that returns logits; it is frozen and changed in place.
        image_size: S, in pixels.
        mean: normalisation that the network was trained with.
        std: likewise.
        class_names: of the source classes.
        folded: fold BatchNorm into the convolutions before it: the same function, faster.
        channels_last: keep weights and activations in that memory format: faster convolutions.
        fast_stem: take the gradient to the image by :class:`StemConvolution`: the same, faster.
        classifier_layer: name of the head in the network; ``None`` looks for it.
        adapter: what of the network is trained.
        reads: what will be asked of it: ``logits``, or ``features``, for which no head is trained.

    Raises:
        UserError: If the network has no such head, or nothing that the adapter could train.

    Attributes:
        body: from normalised images to features (B, D); the whole network where it has no head.
        head: the last layer, where it is linear; else ``None``.
        adapter: its settings.
        trained: what it trains, or ``None``; the only part in ``state_dict()``.
        sha256: of the weights, before anything was changed.
        frozen_count: how many numbers are not trained.
    """

    body: nn.Module
    head: nn.Linear | None
    trained: TrainedPart | None

    def __init__(
        self,
        network: nn.Module,
        image_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        class_names: list[str],
        *,
        folded: bool = True,
        channels_last: bool = True,
        fast_stem: bool = True,
        classifier_layer: str | None = None,
        adapter: Adapter = NoAdapter(),  # noqa: B008 - frozen
        reads: Reads = "logits",
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.mean = mean
        self.std = std
        self.class_names = class_names
        self.channels_last = channels_last
        self.classifier_layer = classifier_layer
        self.adapter = adapter
        network.eval().requires_grad_(requires_grad=adapter.whole)  # folding asks for it
        self.sha256 = fingerprint(network)  # before folding, whose rounding depends on the machine
        count = sum(weight.numel() for weight in network.parameters())
        device, dtype = place_of(network)
        probe = torch.zeros(1, 3, image_size, image_size, device=device, dtype=dtype)
        if folded:
            fold_batch_norm(network, probe)
        if fast_stem:
            replace_stems(network)
        # The head is recognised by its answers, and an image of zeros may give many equal ones.
        noise = torch.rand(probe.shape, generator=torch.Generator().manual_seed(0))
        body, head = split(network, noise.to(probe), classifier_layer)
        # After folding and stems, which replace convolutions.
        body.to(memory_format=self._memory_format)
        if head is not None and dtype in AUTOCAST.values():
            head.float()
        # Past nn.Module's registration.
        object.__setattr__(self, "body", body)
        object.__setattr__(self, "head", head)
        self.trained = self._trained(adapter, reads, noise.to(probe))
        of_network = self.trained.parameters() if self.trained and adapter.whole else ()
        self.frozen_count = count - sum(weight.numel() for weight in of_network)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to source logits (B, source classes)."""
        answer = self._answer(images)
        if self.head is None:
            return answer
        # Autocast would compute the head in 16 bits again.
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.head(answer.to(self.head.weight.dtype))
        return logits

    @property
    def normalisation(self) -> str:
        """Of pixels in [0, 1], by channels, in words."""
        means, stds = (" ".join(f"{x:.4g}" for x in each) for each in (self.mean, self.std))
        return f"mean {means}, std {stds}"

    def features(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to what the head takes (B, D).

        Raises:
            UserError: If the network does not end with a linear layer.
        """
        if self.head is None:
            raise no_head()
        return self._answer(images).to(self.head.weight.dtype)

    def _answer(self, images: Tensor) -> Tensor:
        answer: Tensor = self.body(images.to(self.dtype, memory_format=self._memory_format))
        return answer

    def _trained(self, adapter: Adapter, reads: Reads, images: Tensor) -> TrainedPart | None:
        """What the adapter trains, as far as answers depend on it; the rest is frozen.

        Raises:
            UserError: If there is nothing, or the network does not work with the adapter.
        """
        weights = adapter.attach(self.body, self.head, reads)
        if not weights:
            return None
        try:
            with torch.enable_grad():  # who loads a file may be in no_grad
                answer = (self if reads == "logits" else self.features)(images)
                all_weights = list(weights.values())
                gradients = torch.autograd.grad(answer.sum(), all_weights, allow_unused=True)
        except UserError:
            raise
        except Exception as error:  # some take weights of layers that were replaced
            what = f"the network does not work with it ({one_line(error)})"
            raise problem("adapter", what, type(adapter).__name__) from error
        for weight, gradient in zip(weights.values(), gradients, strict=True):
            # Without a gradient, DDP would wait for it, and an optimiser has no state of it.
            weight.requires_grad_(gradient is not None)
        return TrainedPart({n: weight for n, weight in weights.items() if weight.requires_grad})

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What is trained, by the name that the optimiser's settings use."""
        return {"adapter": [] if self.trained is None else list(self.trained.parameters())}

    def width(self, reads: Reads) -> int:
        """S or D: how many numbers a mapping reads of an image.

        Args:
            reads: of the mapping.

        Raises:
            UserError: If there are no features, because the network has no head.
        """
        if reads == "logits":
            return len(self.class_names)
        if self.head is None:
            raise no_head()
        return self.head.in_features

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return place_of(self.body)[0]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights of the body."""
        return place_of(self.body)[1]

    @property
    def _memory_format(self) -> torch.memory_format:
        """Not kept as an attribute, because it cannot be pickled."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def use_plain_layers(self) -> None:
        """Compute the same in PyTorch's own layers and memory format, which tracers want.

        Nothing is trained any more.
        """
        self.channels_last = False
        merge(self.body)
        self.trained = None
        restore_stems(self.body)
        self.body.to(memory_format=torch.contiguous_format)

    def fuse_attention(self, *, fused: bool) -> None:
        """Compute attention as one kernel (timm's transformers), or step by step."""
        for module in self.body.modules():
            if hasattr(module, "fused_attn"):
                setattr(module, "fused_attn", fused)  # noqa: B010 - timm's, unknown to nn.Module

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Take the network along to another device or precision."""
        self.body._apply(at_least_float32(fn) if self.adapter.whole else fn, recurse)
        if self.head is not None:
            self.head._apply(at_least_float32(fn), recurse)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def no_head() -> UserError:
    """For who asks a network for features that has none."""
    what = "does not end with a linear layer that was found, so it has no features before it"
    return problem("backbone", what, hint="backbone.classifier_layer=<name> names the layer.")


def fingerprint(network: nn.Module) -> str:
    """sha256 over the names and bytes of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        flat = value.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())  # NumPy knows no bfloat16
    return digest.hexdigest()
