"""Equation 1 as one plain ``nn.Module``: what training, prediction, export and figures hold."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from smm_lightning.backbone import Backbone
from smm_lightning.classifier.evaluating import evaluating
from smm_lightning.classifier.parts import Pieces
from smm_lightning.classifier.sharing import Sharing
from smm_lightning.dataset.batch import checked_batches, checked_names, require_form
from smm_lightning.errors import problem
from smm_lightning.mapping import LabelMapping, OverRanks, best_temperature
from smm_lightning.method import InputTransform

if TYPE_CHECKING:
    from smm_lightning.classifier.wrapping import Choice


class ReprogrammedClassifier(Sharing, nn.Module):
    """f_out(f_P(f_in(x))): a frozen classifier that answers for other classes (paper equation 1).

    ``state_dict()`` holds what is learned: prompt, mapping, temperature and what an adapter trains
    of the network, not the frozen rest.

    Args:
        input_transform: f_in.
        backbone: f_P.
        label_mapping: f_out.
        class_names: of the target classes.
        nodes: what files say of its parts; see :class:`Pieces`.

    Attributes:
        card: how it was trained and how good it is, for the model card: texts and numbers by names.
        temperature: that target logits are divided by, a float64 scalar; NaN until it is fitted.

    Raises:
        UserError: If the temperature is no number above 0, or to be fitted for a mapping that is
            trained.
    """

    temperature: Tensor

    def __init__(
        self,
        input_transform: InputTransform,
        backbone: Backbone,
        label_mapping: LabelMapping,
        class_names: list[str],
        nodes: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.input_transform = input_transform
        self.backbone = backbone
        self.label_mapping = label_mapping
        self.class_names = class_names
        self.nodes = nodes or {}
        self.card: dict[str, Any] = {}
        given = label_mapping.temperature
        if given != "auto" and not (isinstance(given, int | float) and 0 < given < math.inf):
            raise problem("mapping.temperature", "must be a number above 0, or auto", given)
        if given == "auto" and any(label_mapping.parameter_groups().values()):
            what = "is learned by a mapping that is trained, and cannot be fitted beside it"
            raise problem("mapping.temperature", what, given, "Use a number.")
        value = math.nan if given == "auto" else given
        self.register_buffer("temperature", torch.tensor(value, dtype=torch.float64))
        self._has_temperature = given != "auto"

    @classmethod
    @override
    def build(
        cls, pieces: Pieces, class_names: list[str], network: nn.Module | None = None
    ) -> Self:
        """Load the frozen weights and put the parts together.

        Args:
            pieces: what it is built of.
            class_names: of the T target classes.
            network: the frozen network, instead of loading it; see :meth:`BackboneSpec.adopt`.

        Raises:
            UserError: If there are no weights, or a part does not fit the others.
        """
        spec, transform, label_mapping, reads, adapter, nodes = pieces
        names = checked_names(class_names)
        if reads == "logits":  # a mapping that does not fit is refused before weights are read
            mapping = label_mapping(inputs=spec.source_classes, classes=len(names))
        given = adapter, reads
        backbone = spec.build(*given) if network is None else spec.adopt(network, *given)
        if reads != "logits":
            mapping = label_mapping(inputs=backbone.width(reads), classes=len(names))
        return cls(transform, backbone, mapping, names, nodes).to(backbone.device)

    @classmethod
    def wrap(
        cls,
        network: nn.Module | str | Mapping[str, Any],
        class_names: list[str],
        *,
        method: "Choice" = "smm",
        mapping: "Choice" = "ilm",
        adapter: "Choice" = "none",
        recipe: str = "steady",
        image_size: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        classifier_layer: str | None = None,
        in_place: bool = False,
    ) -> Self:
        """Visual reprogramming around any classifier.

        Args:
            network: a name of ``conf/backbone``, or such a name with fields of its own,
                ``{"name": "timm", "model": "resnet34"}``; or any module that returns logits
                (B, source classes), alone, in a tuple, in a dictionary or as ``.logits``, in any
                precision.
            class_names: of the target classes, at most as many as the network has.
            method: f_in: a name of ``conf/method``; such a name with fields of its own,
                ``{"name": "smm", "patch_size": 4}``; or a class derived from
                :class:`InputTransform`, or a ``functools.partial`` of one. ``pad`` takes half of
                ``image_size`` as the size of the images, if no ``native_size`` is given.
            mapping: f_out: likewise, of ``conf/mapping`` and :class:`LabelMapping`.
            adapter: what of the network is trained: likewise, of ``conf/adapter`` and
                :class:`Adapter`.
            recipe: of ``conf/recipe``: how masks start, temperature and refits of methods and
                mappings that are given by name. ``paper``: as in the paper.
            image_size: side S of the network's input; if it is not given, what the file of
                ``conf/backbone`` or timm says, else 224.
            mean: normalisation of the network, for images in [0, 1]; if it is not given, what timm
                says, else ImageNet's.
            std: likewise.
            classifier_layer: see :class:`Backbone`.
            in_place: freeze and change a module itself instead of a copy, which saves memory;
                ``from_pretrained`` then takes the ``backbone`` of what comes out, not the module.

        Raises:
            UserError: If a value is out of range, there are too many target classes, or the network
                is no classifier of such images.
        """
        from smm_lightning.classifier.wrapping import Around, pieces_around  # reads conf/ by Hydra

        targets, known = checked_names(class_names), Around(image_size, mean, std, classifier_layer)
        parts = {"method": method, "mapping": mapping, "adapter": adapter}
        pieces, backbone = pieces_around(network, parts, recipe, known, in_place=in_place)
        return cls.build(pieces, targets, backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, input_size, input_size) in [0, 1] to target logits (B, T)."""
        return self.mapped(self.source(images))

    def mapped(self, source: Tensor) -> Tensor:
        """What :meth:`source` gives to target logits (B, T), divided by the temperature.

        Raises:
            RuntimeError: If mapping or temperature was neither fitted nor loaded.
        """
        logits = self.label_mapping(source)
        if not self._has_temperature:
            raise RuntimeError("temperature used before refit() or load_state_dict()")
        return cast("Tensor", logits / self.temperature.to(logits.dtype))

    @property
    def fitted(self) -> bool:
        """Whether mapping and temperature can be used."""
        return self.label_mapping.fitted and self._has_temperature

    def source(self, images: Tensor) -> Tensor:
        """Images to what the mapping reads: source logits (B, S), or features (B, D)."""
        return self.answers(self.input_transform(images))

    def answers(self, prompted: Tensor) -> Tensor:
        """:meth:`source` of what f_in gave, (B, 3, S, S)."""
        if self.label_mapping.reads == "features":
            return self.backbone.features(prompted)
        return cast("Tensor", self.backbone(prompted))

    @property
    def input_size(self) -> int:
        """Side of the images that ``forward`` takes, in pixels."""
        return self.input_transform.input_size

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What is trained, by the names that the optimiser's settings use."""
        parts = (self.input_transform, self.label_mapping, self.backbone)
        groups = (group for part in parts for group in part.parameter_groups().items())
        return {name: weights for name, weights in groups if weights}

    def refit(
        self,
        batches: Iterable[Any],
        over_ranks: OverRanks = lambda statistics: statistics,
    ) -> float:
        """Gather statistics over the training images and take the mapping from them (algorithm 1).

        For ILM before every epoch, for FLM once before the first (paper section 3.1). The first
        time, a temperature that is ``auto`` is fitted, too.

        Args:
            batches: pairs, or dictionaries, of images (B, 3, input_size, input_size) in [0, 1] and
                targets (B,) of class numbers.
            over_ranks: to the sum over all ranks of a distributed training.

        Returns:
            How many target classes changed their source class.

        Raises:
            UserError: If there is no batch, or one holds something else, or a logit is not finite.
        """
        checked = checked_batches(batches, self.input_size, len(self.class_names))
        return self.refit_unchecked(checked, over_ranks)

    @torch.no_grad()
    def refit_unchecked(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        over_ranks: OverRanks = lambda statistics: statistics,
    ) -> float:
        """:meth:`refit` with pairs that are known to be right, of which a rank may have none."""
        answers = self._count(batches)
        changed = self.label_mapping.refit(over_ranks)
        if not self._has_temperature:
            device = self.temperature.device
            mapped = [(self.label_mapping(s.to(device)).cpu(), targets) for s, targets in answers]
            self.temperature.fill_(best_temperature(mapped, device, over_ranks))
            self._has_temperature = True
        return changed

    def _count(self, batches: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Let the mapping see all images, in eval mode.

        Returns:
            What :meth:`source` gave, and targets, on the CPU; nothing where there is a temperature.
        """
        answers: list[tuple[Tensor, Tensor]] = []
        device = self.backbone.device
        self.label_mapping.reset()
        try:
            with evaluating(self):
                for images, targets in batches:
                    source = self.source(images.to(device))
                    self.label_mapping.observe(source, targets.to(device))
                    if not self._has_temperature:
                        answers.append((source.cpu(), targets.cpu()))
        except BaseException:
            self.label_mapping.statistics = None  # a part of the images is no count
            raise
        return answers

    def facts(self) -> dict[str, Any]:
        """Numbers of parameters by groups, what the method says, and the label mapping by names."""
        groups = self.parameter_groups().items()
        counts = {name: sum(weight.numel() for weight in group) for name, group in groups}
        names = self.class_names, self.backbone.class_names
        return {
            "params/trainable": sum(counts.values()),
            **{f"params/{name}": count for name, count in counts.items()},
            "params/frozen": self.backbone.frozen_count,
            **self.input_transform.facts(),
            "temperature": self.temperature.item(),
            "mapping": self.label_mapping.table(*names),
        }

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to confidences (B, T) that sum to 1, in eval mode.

        Raises:
            UserError: If images are no tensor (B, 3, input_size, input_size) of floating-point
                numbers. Their range is not looked at, which would make a GPU wait.
        """
        require_form(images, self.input_size)
        with evaluating(self):
            confidences: Tensor = self(images.to(self.backbone.device)).float().softmax(1)
        return confidences

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Keep the temperature in float64 where the device has it."""
        temperature = self._buffers.pop("temperature")
        assert temperature is not None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = fn(torch.zeros(())).device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._buffers["temperature"] = temperature.to(device, dtype)
        return self

    @override
    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """A loaded temperature is not fitted again."""
        value = state_dict.get(f"{prefix}temperature")
        if isinstance(value, Tensor) and value.numel() == 1:
            if value.item() <= 0 or value.isinf():
                hint = "The file is damaged; use another one."
                raise problem(f"{prefix}temperature", "is not above 0", value.item(), hint)
            self._has_temperature = not value.isnan().item()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
