"""From the parts that a file names to a classifier, without running what a stranger wrote.

A file may name classes of this package, and of modules that the user trusts; nothing else is
imported, and nothing but such a class is called.
"""

import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from inspect import isabstract
from typing import Any, NamedTuple

from smm_lightning.backbone import Adapter, BackboneSpec
from smm_lightning.dataset import Facts, Source
from smm_lightning.errors import Problems, problem
from smm_lightning.mapping import LabelMapping
from smm_lightning.method import InputTransform
from smm_lightning.ranges import Reads
from smm_lightning.run.declared import check_values

Node = Mapping[str, Any]


class Pieces(NamedTuple):
    """What a classifier is built of, before images and weights are read.

    Attributes:
        backbone: f_P, not loaded.
        input_transform: f_in, made for its images.
        label_mapping: from ``inputs`` (S source classes, or D features) and ``classes`` (T) to
            f_out.
        reads: what that one reads; see :class:`LabelMapping`.
        adapter: what of the backbone is trained.
        nodes: class and arguments of ``backbone``, ``method``, ``mapping`` and ``adapter``, and
            ``decoding``: how image files are read. What a file says of them.
    """

    backbone: BackboneSpec
    input_transform: InputTransform
    label_mapping: Callable[..., LabelMapping]
    reads: Reads
    adapter: Adapter
    nodes: Mapping[str, Any]


# By the names of nodes: the room that their classes lie in, and what they must be.
_CONTRACTS: dict[str, tuple[str, type]] = {
    "backbone": ("backbone", BackboneSpec),
    "adapter": ("backbone", Adapter),
    "method": ("method", InputTransform),
    "mapping": ("mapping", LabelMapping),
    "source": ("dataset", Source),
    "facts": ("dataset", Facts),
}


class TrustedParts:
    """Builds what files name.

    Args:
        trust: names of modules outside this package whose classes files may name; they are
            imported, which runs their code.
    """

    def __init__(self, trust: Collection[str] = ()) -> None:
        self._trust = frozenset([trust] if isinstance(trust, str) else trust)

    def pieces(self, nodes: Mapping[str, Node], **backbone: Any) -> Pieces:
        """Of a classifier, with the weights that its method begins with.

        Args:
            nodes: see :class:`Pieces`.
            backbone: other arguments of the backbone than those of its node.

        Raises:
            UserError: If a part cannot be built.
        """
        spec = self.build("backbone", {**nodes["backbone"], **backbone})
        method = self.build("method", nodes["method"], **spec.of_images)
        mapping = partial(self.build, "mapping", nodes["mapping"])
        reads = self._kind("mapping", nodes["mapping"]).reads
        adapter = self.build("adapter", nodes["adapter"])
        return Pieces(spec, method, mapping, reads, adapter, nodes)

    def build(self, name: str, node: Node, kind: type | None = None, **passed: Any) -> Any:
        """An instance of the class that a node names.

        Args:
            name: of the node, a key of :data:`_CONTRACTS`.
            node: its values, and within them nodes of these names.
            kind: the class, where the file does not choose it.
            passed: what the file does not know.

        Raises:
            UserError: If it names none, or has values that the class does not take.
        """
        kind = kind or self._kind(name, node)
        values = {key: value for key, value in node.items() if key != "_target_"}
        children = {key: value for key, value in values.items() if _names_a_class(value)}
        for key, child in children.items():  # else looking at the values would import them
            if not isinstance(child, Mapping) or key not in _CONTRACTS:
                what = "the file names a class within another"
                raise problem(name, what, node.get("_target_"))
            self._kind(key, child)
        check_values(kind, values, name, problems := Problems(), passed=passed)
        problems.raise_if_any()
        built = {key: self.build(key, child) for key, child in children.items()}
        return kind(**{**values, **built}, **passed)

    def _kind(self, name: str, node: Node) -> Any:
        """The class that a node names: of the package, or of a trusted module.

        Raises:
            UserError: If it names no such class.
        """
        target, (room, contract) = str(node.get("_target_")), _CONTRACTS[name]
        place, _, attribute = target.rpartition(".")
        if place != f"smm_lightning.{room}" and place not in self._trust:
            hint = (
                f"If you trust its author: --trust {place}, or trust=['{place}']." if place else ""
            )
            raise problem(name, "the file names a class outside this package", target, hint)
        try:
            module = import_module(place)
        except ImportError as error:
            what = f"its module cannot be imported ({error})"
            raise problem(name, what, target, "It must lie on PYTHONPATH.") from error
        public = place in self._trust or attribute in module.__all__
        kind = getattr(module, attribute, None) if public else None
        if not isinstance(kind, type) or isabstract(kind) or not issubclass(kind, contract):
            raise problem(name, f"the file names no {contract.__name__}", target)
        return kind


def _names_a_class(value: Any) -> bool:
    return "_target_" in json.dumps(value, default=str)
