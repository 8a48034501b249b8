"""A ``.pt2`` file is looked at, and only what was looked at is loaded.

PyTorch's loader evaluates text of the file (sizes, guards), unpickles parts of it and calls
whatever function a graph names. So the archive is written anew from what an export of this program
holds: weights as plain bytes, and a graph of tensor operations.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

from smm_lightning.text import parsed_json

# What a program must know of a whole model, in the file under this name.
FACTS = "smm_lightning.json"
_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_MARKS = re.compile(r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)")
_NAME = re.compile(r"[\w.\-+:]*")
_OPERATION = re.compile(r"torch\.ops\.aten\.([a-z_0-9]+)\.(\w+)")
_REGIONS = re.compile(r"torch\.ops\.higher_order\.wrap_with_(autocast|set_grad_enabled)")
_OF_SIZES = re.compile(
    r"_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|ge|gt|le|lt|getitem)|torch\.sym_int"
)
# Words that tensor operations take, and their arguments that do.
_WORDS = {"none", "tanh", "floor", "trunc", "constant", "reflect", "replicate", "circular"}
_WORDS |= {"cpu", "cuda", "mps"}
_WORDED = ("approximate", "rounding_mode", "mode", "padding", "equation", "reduce", "indexing")
# Of sizes, such as Mul(Integer(4), Symbol('s0', positive=True, integer=True)).
_SIZES = {"Symbol", "Integer", "Add", "Mul", "Mod", "FloorDiv", "Max", "Min"}
_SIZES |= {"positive", "nonnegative", "integer", "True", "False"}
# How arguments and answers of ours are nested: one tensor, and one tensor.
_LEAF = '{"type": null, "context": null, "children_spec": []}'
_TREES = (
    f'[1, {{"type": "builtins.tuple", "context": "null", "children_spec": [{{"type": '
    f'"builtins.tuple", "context": "null", "children_spec": [{_LEAF}]}}, {{"type": "builtins.dict",'
    f' "context": "[]", "children_spec": []}}]}}]',
    f"[1, {_LEAF}]",
)


def looked_at(content: bytes) -> tuple[bytes, bytes]:
    """A ``.pt2`` written anew from what was looked at, and the text of its facts.

    Args:
        content: of a ``.pt2``.

    Raises:
        ValueError: If it holds what no export of this program does.
    """
    copy = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as new,
    ):
        members = {member.filename: member for member in old.infolist()}
        root = next(iter(members)).partition("/")[0]
        if any(member.compress_type for member in members.values()):
            raise ValueError("it is compressed")
        for name in members:
            data = old.read(name)  # also looks at its checksum
            new.writestr(f"model/{name.removeprefix(f'{root}/')}", _checked(name, root, data))
        facts = old.read(f"{root}/extra/{FACTS}")
    return copy.getvalue(), facts


def _checked(name: str, root: str, data: bytes) -> bytes:
    """The content of a member, as far as it is data."""
    place = name.removeprefix(f"{root}/")
    if place == _GRAPH:
        return json.dumps(_checked_graph(parsed_json(data))).encode()
    if place in _CONFIGS:
        entries = parsed_json(data)["config"].values()
        folder = place.rpartition("/")[0]
        if any(
            e["use_pickle"] or not _TENSORS.fullmatch(f"{folder}/{e['path_name']}") for e in entries
        ):
            raise ValueError("it holds pickled objects")
    elif place == _SAMPLES:
        torch.load(io.BytesIO(data), weights_only=True)  # refuses all but tensors
    elif not (place == f"extra/{FACTS}" or _TENSORS.fullmatch(place) or _MARKS.fullmatch(place)):
        raise ValueError(f"it holds {place[:100]!r}")
    return data


def _checked_graph(program: dict[str, Any]) -> dict[str, Any]:
    """A graph of tensor operations, without notes and guards."""
    program["guards_code"] = []  # Python code: of the sizes of images, which we look at ourselves
    for place, key, value in _texts(program):
        if key == "target":
            ok = _is_tensor_operation(value)
        elif key == "expr_str":
            ok = _is_size(value)
        elif key in ("in_spec", "out_spec"):
            ok = value in _TREES
        elif key == "as_string":
            ok = value in _WORDS or place == "torch.ops.aten.einsum.default"
        else:
            ok = _NAME.fullmatch(value) is not None
        if not ok:
            raise ValueError(f"its graph holds {value[:100]!r}")
    return program


def _texts(node: Any, place: str = "", key: str = "") -> Iterator[tuple[str, str, str]]:
    """The operation, the key and the text of everything that is text in a graph, names too."""
    if isinstance(node, str):
        yield place, key, node
    elif isinstance(node, list):
        for inner in node:
            yield from _texts(inner, place, key)
    elif isinstance(node, dict):
        if "metadata" in node:
            node["metadata"] = {}  # for people who debug
        place = str(node.get("target", place))
        for name, inner in node.items():
            yield place, "", name
            yield from _texts(inner, place, name)


def _is_tensor_operation(target: str) -> bool:
    if _OF_SIZES.fullmatch(target) or _REGIONS.fullmatch(target):
        return True
    match = _OPERATION.fullmatch(target)
    if match is None:
        return False
    name, overload = match.groups()
    try:
        operation = getattr(getattr(torch.ops.aten, name), overload)
    except AttributeError:
        return False
    # Those that read and write files are no tensor operations, or take the name of a file.
    arguments = (str(a.type) for a in operation._schema.arguments if a.name not in _WORDED)
    known = torch._C._dispatch_has_kernel(operation.name())
    return bool(known) and not any("str" in kind for kind in arguments)


def _is_size(text: str) -> bool:
    """Sums and products of whole numbers and symbols; a power could take forever."""
    words = re.findall(r"\w+", text)
    known = all(word in _SIZES or re.fullmatch(r"[su]?\d+", word) for word in words)
    return known and "**" not in text and re.fullmatch(r"[\w (),='+*-]*", text) is not None
