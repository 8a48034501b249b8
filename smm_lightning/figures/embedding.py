"""How well the answers of the network separate the target classes."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from smm_lightning.errors import problem
from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import (
    COLUMN,
    in_lines,
    look_of_class,
    new_figure,
    without_ticks,
    write_title,
)
from smm_lightning.figures.trained import Group

_NEIGHBOURS = 5
_FOLDS = 5
_MOST_NAMES = 12  # of classes, in a small picture


@figure(
    "embedding",
    of="group",
    caption="t-SNE of the source logits of training images without a prompt and with each "
    "(as Figure 6); the scores are of the logits, not of the picture.",
)
def embedding(group: Group) -> Drawn:
    """Figure 6; the data are the points, the table ``scores`` silhouette and 5-NN accuracy (%).

    Raises:
        UserError: If there are too few images for the scores.
    """
    group.require_same_images()
    runs = group.trained
    chosen = runs[0].drawn("train", group.limit)
    if np.bincount(runs[0].labels("train")[chosen]).max() < _FOLDS:
        what = f"an embedding needs {_FOLDS} images of a class, for its score"
        raise problem("--limit", what, group.limit, "Take more, or leave it out with --only.")
    logits, _, targets = group.bare.without_prompt("train", chosen)
    classes = targets.numpy()
    names = runs[0].class_names if len(runs[0].class_names) <= _MOST_NAMES else None
    shown = {"without prompt": ("none", logits)}
    for trained in runs:
        source = trained.answers("train", chosen).source_logits
        shown[group.looks[trained.method].label] = (trained.method, source)
    columns = min(4, len(shown))
    rows = -(-len(shown) // columns)
    drawn = new_figure(2 * COLUMN, 1.9 * rows + 0.2)
    axes = drawn.subplots(rows, columns, squeeze=False).flatten()
    points: dict[str, Any] = {"target": classes}
    scores: dict[str, list[Any]] = {"method": [], "silhouette": [], "5-NN accuracy (%)": []}
    for axis, (label, (method, values)) in zip(axes, shown.items(), strict=False):
        array = values.float().numpy()
        silhouette, accuracy = separation(array, classes)
        plane = _plane(array)
        _scatter(axis, plane, classes, names)
        axis.set_title(f"{label}\n5-NN {accuracy:.1f} %, silhouette {silhouette:.3f}", fontsize=6)
        points |= {f"{method} x": plane[:, 0], f"{method} y": plane[:, 1]}
        for name, value in zip(scores, (method, silhouette, accuracy), strict=True):
            scores[name].append(value)
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    title = f"Source logits of n = {len(classes):,} training images: {group.title_of_trained}"
    write_title(drawn, title)
    return Drawn(drawn, points, {"scores": scores}, group.keys_of_trained)


def _plane(values: NDArray[Any]) -> NDArray[Any]:
    """(N, S) to (N, 2)."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    reduced = PCA(min(50, *values.shape), random_state=0).fit_transform(values)
    tsne = TSNE(init="pca", random_state=0, perplexity=min(30, len(values) // 4))
    plane: NDArray[Any] = tsne.fit_transform(reduced)
    return plane


def _scatter(
    axis: Axes, plane: NDArray[Any], classes: NDArray[Any], names: list[str] | None
) -> None:
    outline = [withStroke(linewidth=1.5, foreground="white")]
    for number in np.unique(classes):
        members = plane[classes == number]
        look = look_of_class(int(number))
        axis.scatter(members[:, 0], members[:, 1], s=2, **look, linewidths=0, rasterized=True)
        if names is not None:
            place: Any = np.median(members, axis=0)
            centred: dict[str, Any] = {"ha": "center", "va": "center", "path_effects": outline}
            axis.annotate(in_lines(names[number]), place, fontsize=5, **centred)
    without_ticks(axis)


def separation(values: NDArray[Any], targets: NDArray[Any]) -> tuple[float, float]:
    """Silhouette, and accuracy of five nearest neighbours in five-fold cross-validation (%)."""
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    accuracies = cross_val_score(KNeighborsClassifier(_NEIGHBOURS), values, targets, cv=folds)
    return float(silhouette_score(values, targets)), 100 * float(accuracies.mean())
