"""Any method and mapping around a network, which has a name or is handed over."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

from hydra.utils import get_object
from omegaconf import OmegaConf
from torch import nn

from smm_lightning.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Adapter,
    BackboneSpec,
    NoAdapter,
    OwnNetwork,
    UsualInput,
    taken_over,
    usual_input,
)
from smm_lightning.classifier.parts import Pieces
from smm_lightning.dataset import Decoding
from smm_lightning.errors import Problems, closest, problem
from smm_lightning.mapping import LabelMapping
from smm_lightning.method import InputTransform
from smm_lightning.run.config import CONF, composed
from smm_lightning.run.declared import check_values
from smm_lightning.run.settings import arguments

_USUAL = UsualInput(224, IMAGENET_MEAN, IMAGENET_STD)  # of most networks
_KINDS: dict[str, type] = {"method": InputTransform, "mapping": LabelMapping, "adapter": Adapter}
# A file of conf/<group> by its name, with fields of one's own beside `name`, or a class.
Choice = str | Mapping[str, Any] | Callable[..., Any]


class _Chosen(NamedTuple):
    """A class, and the values that it takes."""

    kind: Any
    values: dict[str, Any]

    @property
    def node(self) -> dict[str, Any]:
        """As a file names it: classes of ours by their room."""
        place: str = self.kind.__module__
        if place.startswith("smm_lightning."):
            place = ".".join(place.split(".")[:2])
        return {"_target_": f"{place}.{self.kind.__qualname__}", **self.values}

    def built(self, group: str, **passed: Any) -> Any:
        """An instance.

        Raises:
            UserError: If it does not take the values, or is of another kind.
        """
        check_values(self.kind, self.values, group, problems := Problems(), passed)
        problems.raise_if_any()
        return self.kind(**self.values, **passed)


class Around(NamedTuple):
    """What the user says of a network that is to be wrapped; ``None``: nothing.

    Attributes:
        image_size: side S of its input, in pixels.
        mean: of its normalisation.
        std: likewise.
        classifier_layer: see :class:`Backbone`.
    """

    image_size: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    classifier_layer: str | None

    @property
    def given(self) -> dict[str, Any]:
        """Those that are not ``None``."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def pieces_around(
    network: "nn.Module | str | Mapping[str, Any]",
    parts: Mapping[str, Choice],
    recipe: str,
    known: Around,
    *,
    in_place: bool,
) -> tuple[Pieces, nn.Module | None]:
    """What a classifier is built of, and the network, if it was handed over.

    Args:
        network: see :meth:`ReprogrammedClassifier.wrap`.
        parts: the choices of ``method``, ``mapping`` and ``adapter`` there.
        recipe: see there.
        known: likewise.
        in_place: likewise.

    Raises:
        UserError: See there.
    """
    if isinstance(network, str | Mapping):
        if known.mean is not None or known.std is not None:
            raise problem(
                "mean, std", "are known of a network with a name", known.mean or known.std
            )
        chosen = _chosen({"backbone": network}, recipe)["backbone"]
        chosen = chosen._replace(values={**chosen.values, **known.given})
        spec: BackboneSpec = chosen.built("backbone")
        node, bare = chosen.node, None
    else:
        usual = (usual_input(network) if isinstance(network, nn.Module) else None) or _USUAL
        facts: dict[str, Any] = {**usual._asdict(), **known.given}
        bare, names = taken_over(network, facts["image_size"], in_place=in_place)
        spec = OwnNetwork(source_classes=len(names), **facts)
        facts |= {"source_classes": len(names), "classifier_layer": spec.classifier_layer}
        node = {"_target_": "smm_lightning.backbone.OwnNetwork", **facts}
    chosen_parts = _chosen(parts, recipe, spec.image_size)
    nodes = {
        "backbone": node,
        **{group: part.node for group, part in chosen_parts.items()},
        "decoding": asdict(Decoding()),
    }
    transform = chosen_parts["method"].built("method", **spec.of_images)
    mapping, adapter = chosen_parts["mapping"], chosen_parts["adapter"].built("adapter")
    if in_place and not isinstance(adapter, NoAdapter):
        what = "an adapter trains a copy of the network, whose original has to stay"
        raise problem("in_place", what, in_place)
    reads = mapping.kind.reads
    pieces = Pieces(spec, transform, partial(mapping.built, "mapping"), reads, adapter, nodes)
    return pieces, None if bare is None else spec.freeze(bare, names, adapter, reads)


def _chosen(
    choices: Mapping[str, Choice], recipe: str, size: int | None = None
) -> dict[str, _Chosen]:
    """Classes and values, from the configuration where a name is given.

    Raises:
        UserError: If a choice is none.
    """
    words = [f"recipe={_known('recipe', recipe)}"]
    for group, choice in choices.items():
        if isinstance(choice, str | Mapping):
            fields = {} if isinstance(choice, str) else dict(choice)
            name = fields.pop("name", None) if fields else choice
            if fields and name is None:
                what = "names no choice beside its fields"
                raise problem(group, what, choice, "Such as {'name': 'smm', 'patch_size': 4}.")
            if wrong := [f for f in fields if not isinstance(f, str) or f.startswith("_")]:
                raise problem(group, "takes fields of its class beside its name", wrong[0])
            words.append(f"{group}={_known(group, name)}")
    if size is not None:  # of the images that pad puts into its frame
        words.append(f"dataset.native_size={max(1, size // 2)}")
    configuration = composed(words)
    chosen = {}
    for group, choice in choices.items():
        if not isinstance(choice, str | Mapping):
            chosen[group] = _of_class(group, choice)
            continue
        node: Any = OmegaConf.to_container(configuration[group], resolve=True)
        node |= {} if isinstance(choice, str) else choice
        values = arguments(node)
        chosen[group] = _Chosen(get_object(values.pop("_target_")), values)
    return chosen


def _known(group: str, name: object) -> str:
    """A name of ``conf/<group>``.

    Raises:
        UserError: If there is no such file.
    """
    names = sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    if name not in names:
        hint = closest(str(name), names) or f"Known are {', '.join(names)}."
        raise problem(group, "no such choice", name, hint)
    return str(name)


def _of_class(group: str, choice: Any) -> _Chosen:
    """A class, or a ``functools.partial`` of one.

    Raises:
        UserError: If it is of no such kind.
    """
    given = isinstance(choice, partial) and not choice.args
    kind, values = (choice.func, dict(choice.keywords)) if given else (choice, {})
    contract = _KINDS[group]
    if not inspect.isclass(kind) or not issubclass(kind, contract):
        what = f"must be a name, a name with fields, or a class derived from {contract.__name__}"
        raise problem(group, what, choice)
    return _Chosen(kind, values)
