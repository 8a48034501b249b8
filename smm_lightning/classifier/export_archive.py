"""A ``.pt2`` file is looked at, and only what was looked at is loaded.

PyTorch's loader evaluates text of the file (sizes, guards), unpickles parts of it and calls
whatever function a graph names. So the archive is written anew from what an export of this program
holds: weights as plain bytes, and a graph of tensor operations.
"""

import io
import json
import re
import zipfile
from keyword import iskeyword
from pathlib import Path
from typing import Any

import torch

from smm_lightning.text import parsed_json


def _words(file: str) -> frozenset[str]:
    return frozenset(Path(__file__).with_name(file).read_text(encoding="utf-8").split())


# What a program must know of a whole model, in the file under this name.
FACTS = "smm_lightning.json"
_GRAPH = "models/model.json"
_SAMPLES = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_TENSORS = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_MARKS = re.compile(r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)")
_DOTTED = re.compile(r"[\w.+-]*")
_OPERATION = re.compile(r"torch\.ops\.aten\.([a-z_0-9A-Z]+)\.(\w+)")
_REGIONS = re.compile(r"torch\.ops\.higher_order\.wrap_with_(autocast|set_grad_enabled)")
_OF_SIZES = re.compile(
    r"_operator\.(add|sub|mul|floordiv|mod|neg|eq|ne|ge|gt|le|lt|getitem)|torch\.sym_int"
)
# Operations that give a tensor and do nothing else, and look at the bounds of what they read.
_TENSOR_OPERATIONS = _words("tensor_operations.txt")
# Fields of a program; an operator, an object or a list of texts as an argument is none of them.
_FIELDS = _words("graph_fields.txt")
_BY_NAMES = {"tensor_values", "sym_int_values", "sym_bool_values", "sym_float_values"}
_BY_NAMES |= {"range_constraints", "opset_version"}
_EMPTY = ("custom_obj_values", "treespec_namedtuple_fields")
_WITH_DOTS = ("torch_version", "parameter_name", "buffer_name", "tensor_constant_name", "fqn")
# Words that tensor operations take.
_WORDS = {"none", "tanh", "floor", "trunc", "constant", "reflect", "replicate", "circular"}
_WORDS |= {"cpu", "cuda", "mps"}
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
        content = parsed_json(data)
        entries = content["config"].values()
        folder = place.rpartition("/")[0]
        if any(
            e["use_pickle"] or not _TENSORS.fullmatch(f"{folder}/{e['path_name']}") for e in entries
        ):
            raise ValueError("it holds pickled objects")
        return json.dumps(content).encode()
    if place == _SAMPLES:
        torch.load(io.BytesIO(data), weights_only=True)  # refuses all but tensors
    elif not (place == f"extra/{FACTS}" or _TENSORS.fullmatch(place) or _MARKS.fullmatch(place)):
        raise ValueError(f"it holds {place[:100]!r}")
    return data


def _checked_graph(program: dict[str, Any]) -> dict[str, Any]:
    """A graph of tensor operations, without notes and guards."""
    program["guards_code"] = []  # Python code: of the sizes of images, which we look at ourselves
    _check(program, "", "")
    return program


def _check(node: Any, key: str, operation: str) -> None:
    """Look at a part of a graph.

    Args:
        node: the part.
        key: its field.
        operation: whose argument it is.

    Raises:
        ValueError: If it holds what no graph of tensor operations does.
    """
    if isinstance(node, str):
        if not _is_known(node, key, operation):
            raise ValueError(f"its graph holds {node[:100]!r}")
    elif isinstance(node, list):
        for inner in node:
            look = _check_operation if key == "nodes" else _check
            look(inner, key, operation)
    elif isinstance(node, dict):
        if "metadata" in node:
            node["metadata"] = {}  # for people who debug
        for name, inner in node.items():
            known = name.isidentifier() if key in _BY_NAMES else name in _FIELDS
            if not known or (name in _EMPTY and inner):
                raise ValueError(f"its graph holds {name[:100]!r}")
            _check(inner, "" if key in _BY_NAMES else name, operation)


def _check_operation(node: dict[str, Any], key: str, _: str) -> None:
    operation = str(node.pop("target"))
    if not _is_tensor_operation(operation):
        raise ValueError(f"its graph holds {operation[:100]!r}")
    _check(node, key, operation)
    node["target"] = operation


def _is_known(text: str, key: str, operation: str) -> bool:
    match key:
        case "expr_str":
            return _is_size(text)
        case "in_spec" | "out_spec":
            return text in _TREES
        case "as_string":
            return text in _WORDS or operation == "torch.ops.aten.einsum.default"
    if key in _WITH_DOTS:
        return _DOTTED.fullmatch(text) is not None
    return not text or (text.isidentifier() and not iskeyword(text))  # a part of Python code


def _is_tensor_operation(target: str) -> bool:
    if _OF_SIZES.fullmatch(target) or _REGIONS.fullmatch(target):
        return True
    match = _OPERATION.fullmatch(target)
    return match is not None and match[1] in _TENSOR_OPERATIONS


def _is_size(text: str) -> bool:
    """Sums and products of whole numbers and symbols; a power could take forever."""
    words = re.findall(r"\w+", text)
    known = all(word in _SIZES or re.fullmatch(r"[su]?\d+", word) for word in words)
    return known and "**" not in text and re.fullmatch(r"[\w (),='+*-]*", text) is not None
