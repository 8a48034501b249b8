"""Every target class reads all source classes, by how probable they make it: BLM and BLM+."""

from typing import Annotated, Any, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor
from typing_extensions import override

from smm_lightning.errors import problem
from smm_lightning.mapping.label_mapping import CountedMapping, Refresh, in_float32
from smm_lightning.mapping.temperature import Temperature
from smm_lightning.ranges import Count

# Of a probability in fixed point: exact in float32, and 2**41 for the paper's largest data set.
_UNIT = 2**24
_SHARE = 0.15  # of the target classes: how many sources of a sample BLM+ takes
_ROUNDING = 1e-3  # that the sum of a column may differ from 1 by


class BayesianMapping(CountedMapping):
    """Target logits = source logits (B, S) @ W (S, T): W[s, t] estimates P(source s | target t).

    d[s, t] counts the samples of target class t whose most probable source class is s (BLM), or
    sums the probabilities of the ``top`` most probable ones (BLM+). P = d / (sum of its row + the
    smoothing), W = P / (sum of its column).

    Source: Cai et al., *Bayesian-guided Label Mapping for Visual Reprogramming*, NeurIPS 2024;
    tmlr-group/BayesianLM.

    Args:
        inputs: S source classes.
        classes: T target classes.
        refresh: ``once``, ``epoch`` or ``running``; see :class:`LabelMapping`.
        smoothing: added once to the sum of each row: sources that are rarely seen weigh less.
        top: ``None`` counts the most probable source of a sample (BLM); a number sums the
            probabilities of so many (BLM+); ``auto``: 15 % of T, at least 1.
        refit_until: see :class:`LabelMapping`.
        temperature: likewise.

    Raises:
        UserError: If ``top`` is larger than S.
    """

    weight: Tensor

    def __init__(
        self,
        inputs: int,
        classes: int,
        refresh: Refresh = "epoch",
        smoothing: Annotated[float, Gt(0), Le(1e9)] = 1.0,
        top: Count | Literal["auto"] | None = None,
        refit_until: Count | None = None,
        temperature: Temperature = 1.0,
    ) -> None:
        super().__init__(refresh, refit_until, temperature)
        self.smoothing = smoothing
        self.top = max(1, int(_SHARE * classes)) if top == "auto" else top
        if self.top is not None and self.top > inputs:
            raise problem("mapping.top", f"is more than the {inputs} source classes", self.top)
        self.register_buffer("weight", torch.zeros(inputs, classes))

    @override
    def forward(self, source: Tensor) -> Tensor:
        self.require_fitted()
        with torch.autocast(source.device.type, enabled=False):  # which would round the weights
            widened = in_float32(source)
            return widened @ self.weight.to(widened.dtype)

    @override
    def reset(self) -> None:
        """See :meth:`LabelMapping.reset`: d[s, t] (S, T), in units of 2^-24."""
        self.statistics = torch.zeros_like(self.weight, dtype=torch.int64)

    @override
    def observe(self, source: Tensor, targets: Tensor) -> None:
        """See :meth:`LabelMapping.observe`: in fixed point, so that no order changes a bit."""
        assert self.statistics is not None, "observe() before reset()"
        if self.top is None:
            chosen = source.argmax(1, keepdim=True)
            mass = torch.ones_like(chosen, dtype=torch.float32)
        else:
            # Among equal ones the first, on every device: topk promises no order.
            probabilities, order = (
                in_float32(source).softmax(1).sort(stable=True, dim=1, descending=True)
            )
            mass, chosen = probabilities[:, : self.top], order[:, : self.top]
        cells = chosen * self.weight.shape[1] + targets[:, None]
        units = (mass * _UNIT).round().long()
        self.statistics.view(-1).index_add_(0, cells.flatten(), units.flatten())

    @override
    def fit(self, statistics: Tensor) -> None:
        counts = statistics.cpu().double() / _UNIT
        joint = counts / (counts.sum(1, keepdim=True) + self.smoothing)
        # A target class without samples has no source: its logit is 0.
        self.weight.copy_(joint / joint.sum(0).clamp_min(torch.finfo(torch.float64).tiny))
        self._fitted = True

    @override
    def dense(self) -> Tensor:
        """See :meth:`LabelMapping.dense`: columns sum to 1."""
        return self.weight.detach().cpu().clone()

    @override
    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Refuse weights that are no probabilities; those of a mapping without a fit are all 0."""
        weight = state_dict.get(f"{prefix}weight")
        if isinstance(weight, Tensor) and weight.shape == self.weight.shape:
            sums = weight.double().sum(0)
            proper = ((sums - 1).abs() <= _ROUNDING) | (sums == 0)
            if not bool((weight >= 0).all() and proper.all()):
                what = "the checkpoint's label mapping holds no probabilities of source classes"
                hint = "The file is damaged; use another checkpoint."
                raise problem(f"{prefix}weight", what, hint=hint)
            self._fitted = bool(weight.any())
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
