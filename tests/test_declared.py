"""Values against the signatures of what takes them."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import pytest
import torch
from annotated_types import Ge, Gt, Le, MinLen, Predicate

from smm_lightning.errors import Problems
from smm_lightning.method.sample_specific import power_of_two
from smm_lightning.run.declared import Name, check_node, check_values


@dataclass
class Inner:
    size: Annotated[int, Ge(1)]


class Taker:
    def __init__(  # noqa: PLR0917
        self,
        count: Annotated[int, Ge(1), Le(9)] = 1,
        rate: Annotated[float, Gt(0)] = 1.0,
        choice: Literal["a", "bee", 3] = "a",
        flag: bool | None = None,
        words: list[str] | Literal["all"] = "all",
        pair: tuple[float, float] = (0.9, 0.99),
        name: Name = "x",
        path: Annotated[str, MinLen(1)] = "p",
        power: Annotated[int, Predicate(power_of_two)] = 1,
        inner: Inner | None = None,
        plain: Inner = Inner(1),  # noqa: B008
        tensor: torch.Tensor | None = None,
        untyped=None,
        parts: dict[str, Any] = {},  # noqa: B006
    ):
        pass


class OpenTaker:
    def __init__(self, own: int = 1, **options: Any):
        pass


class HandsOn:
    options_of = Taker

    def __init__(self, own: int = 1, **options: Any):
        pass


class Unresolved:
    def __init__(self, value: "Nowhere" = 1, count: int = 1):  # noqa: F821
        pass


HERE = __name__
TAKER = {"_target_": f"{HERE}.Taker"}


def problems_of(node, passed=()):
    problems = Problems()
    check_node(node, "x", problems, passed)
    return problems.lines


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"count": 1.5}, "x.count: must be a valid integer (got 1.5)."),
        ({"count": 2.0}, "x.count: must be a valid integer (got 2.0)."),
        ({"count": True}, "x.count: must be a valid integer (got True)."),
        ({"count": "3"}, "x.count: must be a valid integer (got '3')."),
        ({"count": None}, "x.count: must be a valid integer (got None)."),
        ({"count": 0}, "x.count: must be at least 1 (got 0)."),
        ({"count": 10}, "x.count: must be at most 9 (got 10)."),
        ({"rate": float("nan")}, "x.rate: must be a finite number (got nan)."),
        ({"rate": float("inf")}, "x.rate: must be a finite number (got inf)."),
        ({"rate": 0}, "x.rate: must be above 0 (got 0)."),
        ({"choice": "be"}, "x.choice: must be 'a', 'bee' or 3 (got 'be'). Did you mean 'bee'?"),
        ({"flag": 1}, "x.flag: must be a valid boolean or null (got 1)."),
        ({"words": "al"}, "x.words: must be a valid list or 'all' (got 'al'). Did you mean 'all'?"),
        ({"words": [1]}, "x.words: must be a valid string or 'all' (got [1])."),
        ({"pair": [1]}, None),
        ({"name": "a/b"}, "x.name: must be a short name without slashes (got 'a/b')."),
        ({"path": ""}, "x.path: must have at least 1 character (got '')."),
        ({"power": 6}, "x.power: must be a power of two (got 6)."),
        ({"plain": {"size": 0}}, "x.plain.size: must be at least 1 (got 0)."),
        ({"plain": {"siz": 1}}, "x.plain.siz: no such field (got 1). Did you mean 'size'?"),
        ({"cuont": 3}, "x.cuont: no such field (got 3). Did you mean 'count'?"),
        ({"parts": 3}, "x.parts: must be a group of fields (got 3)."),
        ({"parts": {"a": TAKER, "b": 3}}, "x.parts.b: must be a group of fields with a _target_ "),
        ({"inner": {**TAKER, "count": 0}}, "x.inner.count: must be at least 1 (got 0)."),
        ({"untyped": [TAKER, {**TAKER, "rate": -1}]}, "x.untyped.1.rate: must be above 0 (got -1)"),
        ({"untyped": {"_target_": 3}}, "x.untyped._target_: must name a class or function (got 3)"),
        ({"untyped": {"_target_": "no.where"}}, "x.untyped._target_: cannot be loaded"),
        ({"untyped": {"_target_": "os.nope"}}, "x.untyped._target_: cannot be loaded"),
    ],
)
def test_what_does_not_fit_is_a_line(values, line):
    found = problems_of({**TAKER, **values})
    assert found
    if line is not None:
        assert found[0].startswith(line)
    assert all(one.startswith("x.") for one in found)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"count": 9, "rate": 3, "choice": 3, "flag": None, "words": ["a"], "pair": [0, 1]},
        {"name": 2024, "power": 8, "inner": None, "plain": {"size": 2}, "untyped": {"any": 1}},
        {"tensor": [1, 2]},  # what JSON cannot say is left to the class itself
        {"inner": {"_target_": f"{HERE}.Inner", "size": 3}},
    ],
)
def test_what_fits_is_no_problem(values):
    assert problems_of({**TAKER, **values}) == []


def test_all_problems_come_at_once():
    found = problems_of({**TAKER, "count": 0, "rate": -1, "choice": "z", "nope": 1})
    assert [line.partition(":")[0] for line in found] == ["x.count", "x.rate", "x.choice", "x.nope"]


def test_arguments_that_code_passes_cannot_be_set():
    (line,) = problems_of({**TAKER, "count": 3}, passed=("count",))
    assert line.startswith("x.count: no such field (got 3).")


def test_what_is_handed_on_is_checked_against_what_takes_it():
    node = {"_target_": f"{HERE}.HandsOn", "own": 2, "count": 0, "foo": 1}
    assert problems_of(node) == [
        "x.count: must be at least 1 (got 0).",
        "x.foo: no such field (got 1).",
    ]
    assert problems_of({"_target_": f"{HERE}.OpenTaker", "anything": 1}) == []


def test_what_is_missing_is_said_unless_it_comes_later():
    node = {"_target_": f"{HERE}.Inner"}
    assert problems_of(node) == ["x.size: is missing."]
    assert problems_of({**node, "_partial_": True}) == []
    assert problems_of(node, passed=("size",)) == []


def test_annotations_that_only_their_author_can_read_are_left_out():
    node = {"_target_": f"{HERE}.Unresolved", "value": "anything", "count": 1}
    assert problems_of(node) == []


@pytest.mark.parametrize("target", ["torch.optim.Adam", "torch.optim.lr_scheduler.StepLR"])
def test_classes_of_other_packages_have_their_names_checked(target):
    node = {"_target_": target, "_partial_": True}
    assert problems_of({**node, "nope": 1}) == ["x.nope: no such field (got 1)."]


def test_values_too_large_or_too_deep_for_json():
    problems = Problems()
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    check_values(partial(Taker), {"words": deep}, "x", problems)
    check_values(Taker, {"count": 10**5000}, "y", problems)
    assert [line.partition(":")[0] for line in problems.lines] == ["x.words", "y.count"]
