"""f_out: from the logits of the source classes to those of the target classes."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from smm_lightning.errors import problem
from smm_lightning.mapping.assignment import greedy_one_to_one, require_enough_sources
from smm_lightning.ranges import Seed

Refresh = Literal["never", "once", "epoch", "running"]


class LabelMapping(nn.Module, ABC):
    """Contract of a label mapping. Its state is in buffers, and so in the checkpoint.

    Attributes:
        refresh: when the training loop counts predictions and calls :meth:`refit`: ``never``,
            ``once`` before the first epoch, at the start of every ``epoch``, or ``running``:
            before the first epoch, and then from the predictions that training made anyway.
    """

    refresh: Refresh

    @abstractmethod
    def forward(self, source_logits: Tensor) -> Tensor:
        """Source logits (B, S) to target logits (B, T), in float32 or better."""

    @abstractmethod
    def refit(self, counts: Tensor) -> int:
        """Take new counts d (S, T); return how many target classes changed their source."""

    @abstractmethod
    def table(self, classes: list[str], source_classes: list[str]) -> list[dict[str, Any]]:
        """The mapping for people: a row for each target class, with names.

        Args:
            classes: names of the target classes.
            source_classes: names of the source classes.
        """


class OneToOneMapping(LabelMapping):
    """Every target class reads the logit of one source class of its own.

    Source: paper section 3.1 and appendix (label mapping); ILM-VP ``label_mapping_base``.

    Args:
        source_classes: S.
        classes: T, at most S.
        refresh: ``once`` is frequent label mapping (flm), ``epoch`` the iterative one (ilm),
            ``running`` its cheaper variant, see :class:`LabelMapping`.

    Raises:
        UserError: If T > S.
    """

    index: Tensor

    def __init__(
        self, source_classes: int, classes: int, refresh: Literal["once", "epoch", "running"]
    ) -> None:
        super().__init__()
        require_enough_sources(source_classes, classes)
        self.source_classes = source_classes
        self.refresh: Refresh = refresh
        # -1: not fitted yet. A negative index would silently wrap, so forward checks the flag.
        self.register_buffer("index", torch.full((classes,), -1))
        self._fitted = False

    def forward(self, source_logits: Tensor) -> Tensor:
        """See :meth:`LabelMapping.forward`.

        Raises:
            RuntimeError: If no mapping was fitted or loaded yet.
        """
        if not self._fitted:
            raise RuntimeError("label mapping used before refit() or load_state_dict()")
        chosen = source_logits[:, self.index]
        return chosen.to(torch.promote_types(chosen.dtype, torch.float32))

    def refit(self, counts: Tensor) -> int:
        """See :meth:`LabelMapping.refit`."""
        return self._set(greedy_one_to_one(counts))

    def table(self, classes: list[str], source_classes: list[str]) -> list[dict[str, Any]]:
        """See :meth:`LabelMapping.table`."""
        return [
            {"target": name, "source_index": source, "source": source_classes[source]}
            for name, source in zip(classes, self.index.tolist(), strict=True)
        ]

    def _set(self, index: Tensor) -> int:
        index = index.to(self.index.device)
        changed = int((index != self.index).sum())
        self.index.copy_(index)
        self._fitted = True
        return changed

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Refuse an index that would silently read a wrong class."""
        index = state_dict.get(f"{prefix}index")
        if isinstance(index, Tensor) and index.shape == self.index.shape:
            fitted = bool((index >= 0).any())
            if fitted and not self._valid(index):
                raise problem(
                    f"{prefix}index",
                    f"the checkpoint's label mapping is no choice of {len(index)} different "
                    f"source classes below {self.source_classes}",
                    index.tolist(),
                    "The file is damaged; use another checkpoint.",
                )
            self._fitted = fitted
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _valid(self, index: Tensor) -> bool:
        inside = bool(((index >= 0) & (index < self.source_classes)).all())
        return inside and len(set(index.tolist())) == len(index)


class RandomMapping(OneToOneMapping):
    """rlm: a random choice of T different source classes, fixed by the seed; never refitted.

    Args:
        source_classes: S.
        classes: T, at most S.
        seed: of the choice.

    Raises:
        UserError: If T > S.
    """

    def __init__(self, source_classes: int, classes: int, seed: Seed) -> None:
        super().__init__(source_classes, classes, refresh="once")
        self.refresh = "never"
        generator = torch.Generator().manual_seed(seed)
        self._set(torch.randperm(source_classes, generator=generator)[:classes])
