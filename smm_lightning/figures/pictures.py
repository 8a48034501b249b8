"""Image, pattern, mask and what the frozen network is shown."""

import numpy as np
from numpy.typing import NDArray

from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import COLUMN, in_lines, new_figure, without_ticks, write_title
from smm_lightning.figures.trained import TrainedRun
from smm_lightning.method.pictures import VIEWS, equalised, true_colours, views


def panels(trained: TrainedRun, count: int = 4) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """Views of ``count`` images, of as many classes as there are, and their names."""
    split = trained.examples
    chosen = trained.drawn(split, count)
    by_class = chosen[np.argsort(trained.labels(split)[chosen], kind="stable")]
    images, targets = trained.images(split, by_class)
    names = [trained.class_names[label] for label in targets.tolist()]
    return views(trained.classifier.input_transform, images), names


@figure(
    "pictures",
    of="run",
    caption="Images, pattern, masks and prompted images, in true colours above and "
    "histogram-equalised below (as Figures 5 and 13 to 23).",
)
def pictures(trained: TrainedRun) -> Drawn:
    """Figures 5 and 13 to 23: true colours in the upper half, equalised in the lower half."""
    arrays, names = panels(trained)
    rows = len(names)
    drawn = new_figure(COLUMN, 1.7 * rows + 0.4)
    axes = drawn.subplots(2 * rows, 4, squeeze=False)
    for half, (look, ending) in enumerate(((true_colours, ""), (equalised, ", equalised"))):
        for (row, column), axis in np.ndenumerate(axes[half * rows : (half + 1) * rows]):
            name = VIEWS[column]
            axis.imshow(look(arrays[name][row], centred=name in ("pattern", "mask")))
            without_ticks(axis)
            if row == 0:
                axis.set_title(f"{name}{ending}", fontsize=6)
            if column == 0:
                axis.set_ylabel(in_lines(names[row]), fontsize=6)
    write_title(drawn, f"{trained.run.title}, images of {trained.examples}")
    return Drawn(drawn, arrays)
