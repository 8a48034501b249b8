"""Values against the annotations of what takes them: configuration, prompt files, checkpoints.

A constructor says the types and ranges of its arguments; here they are held against a node that
names it. They are checked as strict JSON, which refuses 1.5, true and "3" for an integer and takes
lists for tuples and integers for numbers.
"""

import dataclasses
import inspect
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic

from smm_lightning.errors import Problems, closest

_STRICT = pydantic.ConfigDict(strict=True, allow_inf_nan=False)
_OF_HYDRA = ("_target_", "_partial_")
_ANYTHING = (inspect.Parameter.empty, Any, object, Callable)
_UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# By which people, folders and reports know a choice; the one field that no constructor takes.
Name = Annotated[str, pydantic.Field(pattern=r"^[^/\\\x00-\x1f]{1,100}$")] | int
_WORDS = (
    (r"^(Input|String|List|Tuple|Value) should ", ""),
    (r"^(be|have) ", r"must \1 "),
    ("greater than or equal to", "at least"),
    ("less than or equal to", "at most"),
    ("greater than", "above"),
    ("less than", "below"),
    ("must be an object", "must be a group of fields"),
    (r"^Predicate '?power_of_two'? failed", "must be a power of two"),
    ("valid array", "valid list"),
    (r"^match pattern.*", "must be a short name without slashes"),
)


def check_node(
    node: Any,
    where: str,
    problems: Problems,
    passed: Collection[str] = (),
    kind: Any = inspect.Parameter.empty,
) -> None:
    """Note what is wrong with the values of a node, and of the nodes in it.

    Args:
        node: plain values, with the class or function that takes them as ``_target_``.
        where: its field, for messages.
        problems: what was found so far.
        passed: arguments that code adds; the node cannot set them.
        kind: annotation of what it must give.
    """
    from hydra.errors import HydraException
    from hydra.utils import get_object

    if not isinstance(node, Mapping):
        problems.add(where, "must be a group of fields with a _target_", node)
        return
    if not isinstance(node.get("_target_"), str):
        problems.add(f"{where}._target_", "must name a class or function", node.get("_target_"))
        return
    try:
        target = get_object(node["_target_"])
    except (HydraException, ImportError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        problems.add(f"{where}._target_", f"cannot be loaded ({reason})", node["_target_"])
        return
    if inspect.isclass(kind) and kind not in _ANYTHING and not _is_protocol(kind):
        partial = node.get("_partial_") is True
        if partial or (inspect.isclass(target) and not issubclass(target, kind)):
            given = f"a part of {node['_target_']}" if partial else node["_target_"]
            problems.add(where, f"must be of the class {kind.__name__}", given)
            return
    values = {name: value for name, value in node.items() if name not in _OF_HYDRA}
    check_values(target, values, where, problems, passed, partial=node.get("_partial_") is True)


def check_values(
    target: Callable[..., Any],
    values: Mapping[str, Any],
    where: str,
    problems: Problems,
    passed: Collection[str] = (),
    *,
    partial: bool = False,
) -> None:
    """Note which values ``target`` does not take, and what is missing.

    Args:
        target: a class or function.
        values: of its arguments, plain.
        where: the field that holds them; empty for the top of a configuration.
        problems: what was found so far.
        passed: arguments that code adds.
        partial: whether arguments may be missing, because more come later.
    """
    parameters = _parameters(target)
    taken = {
        name: parameter
        for name, parameter in parameters.items()
        if name not in passed and parameter.kind not in _UNNAMED
    }
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name, value in values.items():
        field = f"{where}.{name}".lstrip(".")
        if name in taken:
            _check_value(taken[name], value, field, problems)
        elif name in passed or not open_ended:
            problems.add(field, "no such field", value, closest(name, taken))
    for name, parameter in taken.items():
        if name not in values and parameter.default is parameter.empty and not partial:
            problems.add(f"{where}.{name}".lstrip("."), "is missing")


def _parameters(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Of a class or function, and of ``options_of``, to which it hands on what it does not name."""
    rest = getattr(target, "options_of", None)
    further = {} if rest is None else _parameters(rest)
    for evaluated in (True, False):
        try:
            named = dict(inspect.signature(target, eval_str=evaluated).parameters)
        except (NameError, TypeError, ValueError):  # names that only its author imports
            continue
        if rest is not None:
            named = {k: p for k, p in named.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
        return {**further, **named}
    return {"anything": inspect.Parameter("anything", inspect.Parameter.VAR_KEYWORD)}


def _check_value(parameter: inspect.Parameter, value: Any, field: str, problems: Problems) -> None:
    annotation, default = parameter.annotation, parameter.default
    if type(value) is type(default) and value == default:
        return
    children = _children(value)
    if isinstance(value, Mapping) and "_target_" in value:
        check_node(value, field, problems, kind=annotation)
    elif any(isinstance(child, Mapping) and "_target_" in child for child in children.values()):
        kind = _kind_of_values(annotation)
        for key, child in children.items():
            check_node(child, f"{field}.{key}", problems, kind=kind)
    elif isinstance(value, Mapping) and dataclasses.is_dataclass(annotation):
        check_values(annotation, value, field, problems)  # type: ignore[arg-type]
    elif annotation is not parameter.empty and not isinstance(annotation, str):
        what, hint = _misfit(annotation, value)
        if what:
            problems.add(field, what, value, hint)


def _kind_of_values(annotation: Any) -> Any:
    """Of a sequence or mapping, or of one that may be ``None``, what its values must be."""
    if get_origin(annotation) in (Union, UnionType):
        options = [one for one in get_args(annotation) if one is not type(None)]
        annotation = options[0] if len(options) == 1 else None
    origin, members = get_origin(annotation), get_args(annotation)
    holds = inspect.isclass(origin) and issubclass(origin, Sequence | Mapping)
    return members[-1] if holds and members else inspect.Parameter.empty


def _is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def _children(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Mapping):
        return value
    return dict(enumerate(value)) if isinstance(value, list) else {}


def _misfit(annotation: Any, value: Any) -> tuple[str, str]:
    """What is wrong with a value, and a hint; both empty if nothing is."""
    try:
        adapter = pydantic.TypeAdapter(annotation, config=_STRICT)
    except (pydantic.errors.PydanticUserError, NameError):  # a class that JSON cannot say
        fits = not inspect.isclass(annotation) or isinstance(value, annotation)
        return ("", "") if fits else ("must be a group of fields with a _target_", "")
    try:
        adapter.validate_json(json.dumps(value))
    except pydantic.ValidationError as error:
        errors = error.errors(include_url=False)
    except (ValueError, TypeError, RecursionError) as error:  # no JSON: too many digits, too deep
        return f"cannot be used ({type(error).__name__})", ""
    else:
        return "", ""
    # Where the type is right, what else it could be is no help.
    ranges = [
        one for one in errors if not one["type"].endswith(("_type", "literal_error"))
    ] or errors
    said = list(dict.fromkeys(_in_words(one["msg"]) for one in ranges))
    said += ["must be null"] if type(None) in get_args(annotation) else []
    choices = re.findall(r"'([^']*)'", " ".join(said))
    hint = closest(value, choices) if isinstance(value, str) else ""
    return " or ".join([said[0], *(words.removeprefix("must be ") for words in said[1:])]), hint


def _in_words(message: str) -> str:
    for pattern, words in _WORDS:
        message = re.sub(pattern, words, message)
    return message
