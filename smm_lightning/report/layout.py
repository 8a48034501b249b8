"""How a table is laid out: which fields make rows and columns, and which number is shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from smm_lightning.errors import did_you_mean, problem
from smm_lightning.report.runs import NAMES, Run, distinct


@dataclass(frozen=True)
class Metric:
    """How a number of ``result.json`` is shown.

    Attributes:
        name: there.
        title: for people.
        unit: behind the title.
        scale: from the stored number to the shown one.
        digits: after the point.
        highest: whether more is better; ``None``: neither is marked.
    """

    name: str
    title: str
    unit: str = ""
    scale: float = 1
    digits: int = 3
    highest: bool | None = None


METRICS = {
    metric.name: metric
    for metric in (
        Metric("test/acc_last", "Test accuracy, last epoch", "%", 100, 1, highest=True),
        Metric("test/acc_best_val", "Test accuracy, best on val", "%", 100, 1, highest=True),
        Metric(
            "test/acc_best_test", "Test accuracy, best epoch on test", "%", 100, 1, highest=True
        ),
        Metric("val/acc", "Validation accuracy, last epoch", "%", 100, 1, highest=True),
        Metric("train/acc_last", "Training accuracy, last epoch", "%", 100, 1, highest=True),
        Metric("method/pixel_accesses", "Pixel accesses an image", "million", 1e-6),
        Metric("time/step_s", "Median time of a training step", "s", 1, 4, highest=False),
    )
}


_MADE = ("protocol.", "dataset.", "trainer.", "backbone.")  # fields that cards follow
BEST = ("test/acc_best_val", "test/acc_best_test")  # left out where no run has them


@dataclass(frozen=True)
class Layout:
    """How a table is laid out: the node ``report`` of an experiment.

    Attributes:
        rows: dotted fields whose values make a row.
        columns: likewise a column.
        metrics: a table for each.
        paper: the paper's table with the same cells, such as ``table1``.
        paper_names: names of ours to those of the paper, where its numbers are of other networks or
            other images; they then stand beside ours without differences.
        tried: fields of which every cell takes the values with the highest accuracy on ``val``.
        beside: another grid whose tables follow: its name, and overrides.
    """

    rows: tuple[str, ...] = ("dataset.name",)
    columns: tuple[str, ...] = ("method.name",)
    metrics: tuple[str, ...] = ("test/acc_last", *BEST)
    paper: str | None = None
    paper_names: Mapping[str, str] = field(default_factory=dict)
    tried: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, node: dict[str, Any] | None) -> "Layout":
        """From the configuration; what it leaves out, or is null, stays as it is here.

        Raises:
            UserError: If it has another field.
        """
        given = {name: value for name, value in (node or {}).items() if value is not None}
        for name in given.keys() - cls.__dataclass_fields__.keys():
            raise problem(
                "report", "no such field", name, did_you_mean(name, cls.__dataclass_fields__)
            )
        for name in given.keys() & {"rows", "columns", "metrics", "tried", "beside"}:
            value = given[name]
            given[name] = (value,) if isinstance(value, str) else tuple(value)
        if not isinstance(given.get("paper_names", {}), Mapping):
            what = "must map our names to the paper's"
            raise problem("report.paper_names", what, given["paper_names"])
        if "metrics" in given and not given["metrics"]:
            raise problem("report.metrics", "must name at least one number of result.json", [])
        return cls(**given)

    @property
    def fields(self) -> list[str]:
        """Everything that tells cells apart."""
        return distinct([*NAMES, *self.rows, *self.columns])

    def cell(self, run: Run) -> tuple[str, ...]:
        """What a run shares with those that stand in the same cell."""
        return tuple(str(run.value(name)) for name in self.fields)

    def compared(self, run: Run) -> tuple[str, ...]:
        """What a run shares with those beside it: its row, and columns of how it was made."""
        fields = (n for n in self.fields if n not in self.columns or n.startswith(_MADE))
        return tuple(str(run.value(name)) for name in fields)
