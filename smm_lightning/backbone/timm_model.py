"""Any classifier of the timm library."""

from dataclasses import dataclass
from functools import partial

import timm
import torch
from torch import nn
from typing_extensions import override

from smm_lightning.backbone.spec import BackboneSpec, InputSize
from smm_lightning.backbone.weights import fetched
from smm_lightning.errors import closest, one_line, problem


@dataclass(kw_only=True)
class TimmModel(BackboneSpec):
    """Any classifier of the timm library, with its own mean, std and size.

    Args:
        model: timm's name.
        image_size: ``None`` takes the size that the model was trained with.

    Raises:
        UserError: If timm does not know the model, it is no classifier, or takes no such images.
    """

    model: str
    image_size: InputSize | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """See :class:`BackboneSpec`."""
        if not timm.is_model(self.model):
            hint = (
                f"{closest(self.model, timm.list_models())} timm.list_models() names all.".lstrip()
            )
            raise problem("backbone.model", "timm has no such model", self.model, hint)
        self._facts = timm.get_pretrained_cfg(self.model)
        if self._facts is None:
            raise problem("backbone.model", "timm knows no size and mean of it", self.model)
        self.image_size = self.image_size or self._facts.input_size[-1]
        self.mean = tuple(self._facts.mean)
        self.std = tuple(self._facts.std)
        self.source_classes = self._facts.num_classes
        if not self.source_classes:
            raise problem("backbone.model", "is no classifier, but gives features", self.model)
        super().__post_init__()
        if self.image_size != self._facts.input_size[-1]:
            self._require_size()

    def _require_size(self) -> None:
        """Try whether images of another size than usual pass, without weights and numbers."""
        images = torch.empty(1, 3, *2 * (self.image_size or 0,), device="meta")
        try:
            with torch.device("meta"):
                shape = tuple(self._create(pretrained=False).eval()(images).shape)
        except NotImplementedError:  # an operation that cannot be tried so
            return
        except Exception as error:  # each network has its own
            what = f"{self.model} cannot take images of this size ({one_line(error)[:200]})"
            raise problem("backbone.image_size", what, self.image_size) from error
        if shape != (1, self.source_classes):
            raise problem("backbone.model", "does not answer with logits", shape)

    @override
    def architecture(self) -> nn.Module:
        return self._create(pretrained=False)

    @override
    def pretrained_network(self) -> nn.Module:
        source = self._facts.hf_hub_id or self._facts.url or "unknown to timm"
        place = "the cache of the Hugging Face hub (HF_HOME)"
        return fetched(partial(self._create, pretrained=True), str(source), place)

    def _create(self, *, pretrained: bool) -> nn.Module:
        # Transformers are built for one size; convolutional networks take any and know no img_size.
        native = self.image_size == self._facts.input_size[-1]
        size = {} if native or not _takes_size(self.model) else {"img_size": self.image_size}
        network: nn.Module = timm.create_model(self.model, pretrained=pretrained, **size)
        return network


def _takes_size(model: str) -> bool:
    """Whether the network has patches or windows that depend on the image's size."""
    with torch.device("meta"):
        return hasattr(timm.create_model(model, pretrained=False), "patch_embed")
