"""Every target class has a source class of its own: rlm, flm, ilm (paper section 3.1)."""

from typing import Any, Literal

import torch
from torch import Tensor
from typing_extensions import override

from smm_lightning.errors import problem
from smm_lightning.mapping.assignment import add_pairs, greedy_one_to_one, require_enough_sources
from smm_lightning.mapping.label_mapping import CountedMapping, in_float32
from smm_lightning.mapping.temperature import Temperature
from smm_lightning.ranges import Count, Seed


class OneToOneMapping(CountedMapping):
    """Every target class reads the logit of one source class of its own.

    Source: paper section 3.1 and appendix (label mapping); ILM-VP ``label_mapping_base``.

    Args:
        inputs: S source classes.
        classes: T target classes, at most S.
        refresh: ``once`` is frequent label mapping (flm), ``epoch`` the iterative one (ilm),
            ``running`` its cheaper variant, see :class:`LabelMapping`.
        refit_until: see :class:`LabelMapping`.
        temperature: likewise.

    Raises:
        UserError: If T > S.
    """

    index: Tensor

    def __init__(
        self,
        inputs: int,
        classes: int,
        refresh: Literal["once", "epoch", "running"],
        refit_until: Count | None = None,
        temperature: Temperature = 1.0,
    ) -> None:
        super().__init__(refresh, refit_until, temperature)
        require_enough_sources(inputs, classes)
        self.inputs = inputs
        # -1: not fitted yet. A negative index would silently wrap, so forward checks the flag.
        self.register_buffer("index", torch.full((classes,), -1))

    @override
    def forward(self, source: Tensor) -> Tensor:
        self.require_fitted()
        return in_float32(source[:, self.index])

    @override
    def reset(self) -> None:
        """See :meth:`LabelMapping.reset`: d[s, t] (S, T)."""
        shape = self.inputs, len(self.index)
        self.statistics = torch.zeros(shape, dtype=torch.int64, device=self.index.device)

    @override
    def observe(self, source: Tensor, targets: Tensor) -> None:
        """See :meth:`LabelMapping.observe`: the largest logit of each sample counts one."""
        assert self.statistics is not None, "observe() before reset()"
        add_pairs(self.statistics, source.argmax(1), targets)

    @override
    def fit(self, statistics: Tensor) -> None:
        # On the CPU for every device: ties must not be broken by the order of a parallel sort.
        self._set(greedy_one_to_one(statistics))

    @override
    def dense(self) -> Tensor:
        """See :meth:`LabelMapping.dense`: 0 and 1."""
        weights = torch.zeros(self.inputs, len(self.index))
        if self._fitted:
            weights[self.index.cpu(), torch.arange(len(self.index))] = 1
        return weights

    def _set(self, index: Tensor) -> None:
        self.index.copy_(index)
        self._fitted = True

    @override
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
                    f"source classes below {self.inputs}",
                    index.tolist(),
                    "The file is damaged; use another checkpoint.",
                )
            self._fitted = fitted
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _valid(self, index: Tensor) -> bool:
        inside = bool(((index >= 0) & (index < self.inputs)).all())
        return inside and len(set(index.tolist())) == len(index)


class RandomMapping(OneToOneMapping):
    """rlm: a random choice of T different source classes, fixed by the seed; never refitted.

    Args:
        inputs: S source classes.
        classes: T target classes, at most S.
        seed: of the choice.
        temperature: see :class:`LabelMapping`.

    Raises:
        UserError: If T > S.
    """

    def __init__(
        self, inputs: int, classes: int, seed: Seed, temperature: Temperature = 1.0
    ) -> None:
        super().__init__(inputs, classes, refresh="once", temperature=temperature)
        self.refresh = "never"  # the parent has no such mapping
        # A generator of its own: the choice must not depend on what was drawn before.
        generator = torch.Generator().manual_seed(seed)
        self._set(torch.randperm(inputs, generator=generator)[:classes])

    def reset(self) -> None:
        """Nothing is counted: the choice stays."""

    def observe(self, source: Tensor, targets: Tensor) -> None:
        """See :meth:`reset`."""
