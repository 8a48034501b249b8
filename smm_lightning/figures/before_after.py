"""What a prompt does to images, and to what the frozen network says of them."""

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import new_figure, without_ticks, write_title
from smm_lightning.figures.trained import TrainedRun
from smm_lightning.method.pictures import true_colours, views

_HEADS = ("image", "its mask", "pattern\nx mask", "image\n+ both")
_ROWS = 3
_ASKED = 1000  # images, at most
_LONGEST = 21  # characters of a class name


@figure(
    "before_after",
    of="run",
    caption="Images of different classes whose answer the prompt turned from wrong to right: "
    "image, mask, pattern, sum, and the answers before and after training. The head counts all.",
)
def before_after(trained: TrainedRun) -> Drawn | None:
    """Images with a right answer after training and a wrong one before, one of a class.

    Before: the prompt at its start, under the mapping of the first count.
    """
    split = trained.examples
    asked = trained.drawn(split, min(_ASKED, len(trained.labels(split))))
    before, after = trained.first_answers(split, asked), trained.answers(split, asked)
    right = [answers.logits.argmax(1) == answers.targets for answers in (before, after)]
    chosen = _one_of_a_class(~right[0] & right[1], after.targets)
    if not chosen:
        return None
    images, _ = trained.images(split, asked[chosen])
    arrays = views(trained.classifier.input_transform, images)
    added = arrays["pattern"] * arrays["mask"]
    columns = (arrays["image"], arrays["mask"], added, arrays["shown"])
    drawn = new_figure(5.0, 0.95 * len(chosen) + 0.7)
    axes = drawn.subplots(len(chosen), 5, squeeze=False, width_ratios=(1, 1, 1, 1, 1.7))
    for row, number in enumerate(chosen):
        for column, pictures in enumerate(columns):
            axis = axes[row, column]
            axis.imshow(true_colours(pictures[row], centred=column in (1, 2)))
            without_ticks(axis)
            axis.spines[:].set_visible(False)
            axis.set_title(_HEADS[column] if row == 0 else "", fontsize=8)
        _say(axes[row, 4], trained.class_names, before.logits[number], after.logits[number])
    axes[0, 4].set_title("answer before\nand after training", fontsize=8)
    counts = [int(one.sum()) for one in right]
    told = f"{counts[0]} of {len(asked)} images of {split} right before, {counts[1]} after"
    write_title(drawn, f"{trained.run.title}\n{told}", 8)
    shown = {"index": asked[chosen], "right": np.array(counts)}
    return Drawn(drawn, {**arrays, **shown})


def _one_of_a_class(turned: Tensor, targets: Tensor) -> list[int]:
    """Places of the first such image of each class, as many as are shown."""
    first: dict[int, int] = {}
    for place in turned.nonzero().flatten().tolist():
        first.setdefault(int(targets[place]), place)
    return list(first.values())[:_ROWS]


def _say(axis: Axes, names: list[str], *logits: Tensor) -> None:
    """The likeliest class and its confidence, before in grey and after in blue."""
    axis.set_axis_off()
    for height, values, colour in zip((0.58, 0.08), logits, ("#777777", "#0072B2"), strict=True):
        confidence, number = values.softmax(0).max(0)
        words = f"{_short(names[int(number)])}\n{100 * confidence:.0f} %"
        axis.text(0.04, height, words, color=colour, fontsize=8.5)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
