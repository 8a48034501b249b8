"""What a training did, epoch by epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator, NullFormatter

from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import COLUMN, new_figure, write_title
from smm_lightning.figures.trained import TrainedRun

_BLUE, _GREEN, _ORANGE = "#0072B2", "#009E73", "#D55E00"


@dataclass(frozen=True)
class Panel:
    """One of the small plots.

    Attributes:
        title: over it.
        lines: label, style and colour, by the name in the history.
        scale: from what was recorded to what is shown.
        logarithmic: of the vertical axis.
        guessing: draw the loss of guessing, ln T.
    """

    title: str
    lines: Mapping[str, tuple[str, str, str]]
    scale: float = 1
    logarithmic: bool = False
    guessing: bool = False


_PANELS = (
    Panel("training loss", {"train/loss": ("training", "-", _BLUE)}, guessing=True),
    Panel(
        "accuracy (%)",
        {
            "train/acc": ("train", "-", _BLUE),
            "val/acc": ("val", "s-.", _GREEN),
            "test/acc": ("test", "o--", _ORANGE),
        },
        scale=100,
    ),
    Panel("changed source classes", {"mapping/changed": ("", ".-", _BLUE)}),
    Panel(
        "prompt",
        {
            "prompt/mask": ("mask, mean", "-", _BLUE),
            "prompt/distance": ("added, RMS", "o--", _ORANGE),
        },
        logarithmic=True,
    ),
)


@figure(
    "curves",
    of="run",
    needs="history",
    caption="Training loss, accuracies, changes of the label mapping and size of the prompt "
    "for each epoch (as Figure 11).",
)
def curves(trained: TrainedRun) -> Drawn:
    """Figure 11, training loss and accuracies for each epoch; and what prompt and mapping did."""
    history = trained.result["history"]
    recorded = {name for row in history for name in row}
    panels = [panel for panel in _PANELS if recorded & panel.lines.keys()]
    epochs = np.array([int(row["epoch"]) + 1 for row in history])
    data: dict[str, Any] = {"epoch": epochs.tolist()}
    rows = -(-len(panels) // 2)
    drawn = new_figure(COLUMN, 1.9 * rows)
    axes = drawn.subplots(rows, 2, squeeze=False).flatten()
    for axis, panel in zip(axes, panels, strict=False):
        for name, (label, style, colour) in panel.lines.items():
            values = np.array([row.get(name, np.nan) for row in history], dtype=float)  # null: nan
            if (measured := ~np.isnan(values)).any():
                data[name] = values.tolist()
                shown = epochs[measured], panel.scale * values[measured]
                axis.plot(*shown, style, ms=3, color=colour, label=label)
        axis.set(xlabel="epoch", title=panel.title)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if panel.guessing and (classes := trained.result.get("class_names")):
            axis.axhline(np.log(len(classes)), color="black", lw=0.8, ls=":", label="guessing")
        drawn_values = [line.get_ydata() for line in axis.lines]
        if panel.logarithmic and any(np.any(np.asarray(v) > 0) for v in drawn_values):
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
        if len(axis.lines) > 1:
            axis.legend()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    write_title(drawn, trained.run.title)
    return Drawn(drawn, data)
