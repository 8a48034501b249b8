"""Figures that compare the methods on one dataset."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor, nn

from smm_lightning.errors import problem
from smm_lightning.figures.style import COLUMN, colour, look_of_class, new_figure
from smm_lightning.figures.trained import Trained

Data = dict[str, Any]
_NEIGHBOURS = 5
_FOLDS = 5
_MOST_NAMES = 12  # of classes, in a small picture


def confidence(
    runs: Sequence[Trained], numbers: Sequence[int] | None, limit: int
) -> tuple[Figure, Data]:
    """Figure 1: confidence of the true class for single training images under each method.

    Args:
        runs: one for each method.
        numbers: of training images; ``None`` takes four about which the methods differ most.
        limit: how many training images to choose those from.

    Raises:
        UserError: If there is no image of such a number.
    """
    require_same_images(runs)
    count = len(runs[0].labels("train"))
    if numbers is not None and max(numbers) >= count:
        raise problem("--images", f"must be below {count}", max(numbers))
    chosen = runs[0].drawn("train", limit) if numbers is None else np.array(numbers)
    answers = [trained.answers("train", chosen) for trained in runs]
    confidences = torch.stack([answer.confidences for answer in answers])
    if numbers is None:
        places = most_different(confidences, answers[0].targets, 4)
        chosen, confidences = chosen[places], confidences[:, places]
    found = confidences.numpy()
    largest = {trained.classifier.input_transform.input_size: trained for trained in runs}
    images, targets = largest[max(largest)].images("train", chosen)
    names = largest[max(largest)].class_names
    figure = new_figure(COLUMN, 2.9)
    axes = figure.subplots(2, len(chosen), height_ratios=(1, 1.5), squeeze=False)
    methods = [trained.method for trained in runs]
    for column in range(len(chosen)):
        axes[0, column].imshow(images[column].permute(1, 2, 0).cpu().clamp(0, 1).numpy())
        axes[0, column].set_title(names[int(targets[column])], fontsize=6)
        axes[0, column].set_axis_off()
        axis = axes[1, column]
        axis.barh(range(len(runs)), found[:, column], color=[colour(m) for m in methods])
        axis.set_xlim(0, 1)
        axis.set_yticks(range(len(runs)), methods if column == 0 else [""] * len(runs), fontsize=6)
        axis.invert_yaxis()
    axes[1, 0].set_xlabel("confidence of the true class", fontsize=6, loc="left")
    figure.suptitle(_title(runs), fontsize=7)
    return figure, {"image": [*chosen], **{m: found[i] for i, m in enumerate(methods)}}


def require_same_images(runs: Sequence[Trained]) -> None:
    """Methods are compared on the same training images.

    Raises:
        UserError: If runs were trained on others than the first of them.
    """
    for trained in runs[1:]:
        digests = {one.result["images"]["train"]["digest"] for one in (trained, runs[0])}
        if len(digests) > 1:
            folders = f"{runs[0].run.folder.name}, {trained.run.folder.name}"
            hint = "Draw figures of runs with the same dataset settings."
            raise problem("figures", "runs with other training images", folders, hint)


def most_different(confidences: Tensor, targets: Tensor, count: int) -> list[int]:
    """Images about which the methods differ most, one of a class.

    Args:
        confidences: (methods, N) of the true class.
        targets: (N,) true classes.
        count: how many, at most.
    """
    first_of_class: dict[int, int] = {}
    for number in confidences.std(0).argsort(descending=True, stable=True).tolist():
        first_of_class.setdefault(int(targets[number]), number)
    return list(first_of_class.values())[:count]


def loss_change(runs: Sequence[Trained], limit: int) -> tuple[Figure, Data, Data]:
    """Figure 2: final minus initial loss of each training image, and the share that rises.

    The initial loss is that of the prompt at its start with the mapping counted there. ``fc`` is
    the paper's reference: a fully connected layer, trained on the frozen features.

    Returns:
        The figure, the changes of every image, and a summary by method: the share that rises (%).
    """
    require_same_images(runs)
    chosen = runs[0].drawn("train", limit)
    changes: dict[str, NDArray[np.float32]] = {}
    for trained in runs:
        first, last = trained.first_answers("train", chosen), trained.answers("train", chosen)
        changes[trained.method] = (last.losses - first.losses).numpy()
    bare = next((t for t in runs if t.method != "pad"), runs[0])
    _, features, targets = bare.without_prompt("train", chosen)
    changes["fc"] = fully_connected_change(features, targets).numpy()
    rising = {method: 100 * float((change > 0).mean()) for method, change in changes.items()}
    figure = new_figure(COLUMN, 0.75 * len(changes) + 0.5)
    axes = figure.subplots(len(changes), 1, sharex=True, squeeze=False)[:, 0]
    low, high = np.percentile(np.concatenate(list(changes.values())), (0.5, 99.5))
    edges = np.linspace(min(low, -0.1), max(high, 0.1), 61)
    for axis, (method, change) in zip(axes, changes.items(), strict=True):
        axis.hist(np.clip(change, edges[0], edges[-1]), edges, color=colour(method))
        axis.axvline(0, color="black", lw=0.8)
        axis.text(
            0.01,
            0.85,
            f"{method}: {rising[method]:.1f} % rise",
            transform=axis.transAxes,
            ha="left",
            va="top",
            fontsize=6,
        )
        axis.set_yticks([])
    axes[-1].set_xlabel("final loss minus initial loss of a training image")
    figure.suptitle(_title(runs), fontsize=7)
    return figure, changes, {"method": list(rising), "share that rises (%)": list(rising.values())}


def fully_connected_change(features: Tensor, targets: Tensor, epochs: int = 20) -> Tensor:
    """Final minus initial loss (N,) of a linear layer on frozen features, trained by Adam.

    Args:
        features: (N, D).
        targets: (N,).
        epochs: of training, batches of 256, learning rate 0.01.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Linear(features.shape[1], int(targets.max()) + 1)
    features = features.clone()  # out of inference mode

    def losses() -> Tensor:
        with torch.no_grad():
            return nn.functional.cross_entropy(layer(features), targets, reduction="none")

    first = losses()
    adam = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(epochs):
        for chosen in torch.randperm(len(targets), generator=generator).split(256):
            adam.zero_grad()
            nn.functional.cross_entropy(layer(features[chosen]), targets[chosen]).backward()
            adam.step()
    return losses() - first


def embedding(runs: Sequence[Trained], limit: int) -> tuple[Figure, Data, Data]:
    """Figure 6: t-SNE of the source logits without a prompt and with each, and two scores.

    The scores are of the logits themselves, not of the picture: silhouette (-1 to 1), and accuracy
    of five nearest neighbours in five-fold cross-validation (%).

    Returns:
        The figure, the points, and the scores by method.

    Raises:
        UserError: If there are too few images for the scores.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    require_same_images(runs)
    chosen = runs[0].drawn("train", limit)
    if np.bincount(runs[0].labels("train")[chosen]).max() < _FOLDS:
        what = f"an embedding needs {_FOLDS} images of a class, for its score"
        raise problem("--limit", what, limit, "Take more, or leave it out with --only.")
    bare = next((t for t in runs if t.method != "pad"), runs[0])
    logits, _, targets = bare.without_prompt("train", chosen)
    found = {"none": logits, **{t.method: t.answers("train", chosen).source_logits for t in runs}}
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure = new_figure(2 * COLUMN, 1.9 * rows + 0.2)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    points: Data = {"target": targets.numpy()}
    scores: Data = {"method": [], "silhouette": [], "5-NN accuracy (%)": []}
    for axis, (method, values) in zip(axes, found.items(), strict=False):
        array = values.float().numpy()
        silhouette, accuracy = separation(array, targets.numpy())
        reduced = PCA(min(50, *array.shape), random_state=0).fit_transform(array)
        plane = TSNE(init="pca", random_state=0, perplexity=min(30, len(array) // 4)).fit_transform(
            reduced
        )
        for number in np.unique(targets.numpy()):
            own = plane[targets.numpy() == number]
            axis.scatter(*own.T, s=2, **look_of_class(int(number)), linewidths=0, rasterized=True)
            if len(runs[0].class_names) <= _MOST_NAMES:
                axis.annotate(
                    runs[0].class_names[number],
                    np.median(own, axis=0),
                    fontsize=6,
                    ha="center",
                    va="center",
                    path_effects=[withStroke(linewidth=1.5, foreground="white")],
                )
        axis.set_title(f"{method}\n5-NN {accuracy:.1f} %, silhouette {silhouette:.3f}", fontsize=6)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
        points |= {f"{method} x": plane[:, 0], f"{method} y": plane[:, 1]}
        for name, value in zip(scores, (method, silhouette, accuracy), strict=True):
            scores[name].append(value)
    for axis in axes[len(found) :]:
        axis.set_axis_off()
    figure.suptitle(f"Source logits of {len(targets)} training images. {_title(runs)}", fontsize=7)
    return figure, points, scores


def separation(values: NDArray[Any], targets: NDArray[Any]) -> tuple[float, float]:
    """Silhouette, and accuracy of five nearest neighbours in five-fold cross-validation (%)."""
    from sklearn.metrics import silhouette_score
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    found = cross_val_score(KNeighborsClassifier(_NEIGHBOURS), values, targets, cv=folds)
    return float(silhouette_score(values, targets)), 100 * float(found.mean())


def _title(runs: Sequence[Trained]) -> str:
    keys = " ".join(trained.result["run_key"] for trained in runs)
    return fill(f"{runs[0].run.value('dataset.name')}, runs {keys}", 56)
