"""Figures 5 and 13 to 23: image, pattern, mask and what the frozen network is shown."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from smm_lightning.figures.style import COLUMN, new_figure
from smm_lightning.figures.trained import Trained
from smm_lightning.method.pictures import VIEWS, equalised, true_colours, views


def panels(trained: Trained, count: int = 4) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """Views of ``count`` test images, of as many classes as there are, and their names."""
    chosen = trained.drawn("test", count)
    by_class = chosen[np.argsort(trained.labels("test")[chosen], kind="stable")]
    images, targets = trained.images("test", by_class)
    names = [trained.class_names[label] for label in targets.tolist()]
    return views(trained.classifier.input_transform, images), names


def draw(trained: Trained) -> tuple[Figure, dict[str, NDArray[np.float32]]]:
    """True colours in the upper half, histogram-equalised (as printed) in the lower half."""
    arrays, names = panels(trained)
    rows = len(names)
    figure = new_figure(COLUMN, 1.7 * rows + 0.4)
    axes = figure.subplots(2 * rows, 4, squeeze=False)
    for half, look in enumerate((true_colours, equalised)):
        for row in range(rows):
            for column, name in enumerate(VIEWS):
                axis = axes[half * rows + row, column]
                axis.imshow(look(arrays[name][row], centred=name in ("pattern", "mask")))
                axis.set_xticks([])
                axis.set_yticks([])
                axis.grid(visible=False)
                if row == 0:
                    axis.set_title(name if half == 0 else f"{name}, equalised", fontsize=6)
            axes[half * rows + row, 0].set_ylabel(names[row], fontsize=6)
    figure.suptitle(trained.run.title, fontsize=7)
    return figure, arrays
