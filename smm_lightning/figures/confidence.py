"""How sure each method is of single images."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smm_lightning.errors import problem
from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import COLUMN, in_lines, new_figure, write_title
from smm_lightning.figures.trained import Group


@figure(
    "confidence",
    of="group",
    caption="Confidence of the true class for single training images under each method "
    "(as Figure 1): those about which the methods differ most, or those that were named.",
)
def confidence(group: Group) -> Drawn:
    """Figure 1, for the images ``group.numbers``; without these, for four images.

    Raises:
        UserError: If there is no image of such a number.
    """
    group.require_same_images()
    runs, numbers = group.trained, group.numbers
    count = len(runs[0].labels("train"))
    if numbers is not None and max(numbers) >= count:
        raise problem("--images", f"must be below {count}", max(numbers))
    chosen = runs[0].drawn("train", group.limit) if numbers is None else np.array(numbers)
    answers = [trained.answers("train", chosen) for trained in runs]
    confidences = torch.stack([answer.confidences for answer in answers]).numpy()
    if numbers is None:
        places = most_different(confidences, answers[0].targets, 4)
        chosen, confidences = chosen[places], confidences[:, places]
    # The pad method has smaller images.
    largest = max(runs, key=lambda trained: trained.classifier.input_size)
    images, targets = largest.images("train", chosen)
    drawn = new_figure(COLUMN, 2.9)
    axes = drawn.subplots(2, len(chosen), height_ratios=(1, 1.5), squeeze=False)
    looks = [group.looks[trained.method] for trained in runs]
    for column, (picture, axis) in enumerate(axes.T):
        picture.imshow(images[column].permute(1, 2, 0).cpu().clamp(0, 1).numpy())
        picture.set_title(in_lines(largest.class_names[int(targets[column])]), fontsize=6)
        picture.set_axis_off()
        axis.barh(range(len(runs)), confidences[:, column], color=[one.colour for one in looks])
        axis.set_xlim(0, 1)
        labels = [one.label if column == 0 else "" for one in looks]
        axis.set_yticks(range(len(runs)), labels, fontsize=6)
        axis.invert_yaxis()
    axes[1, 0].set_xlabel("confidence of the true class", fontsize=6, loc="left")
    write_title(drawn, f"{group.title_of_trained}, n = {len(chosen):,} training images")
    by_method = {trained.method: c for trained, c in zip(runs, confidences, strict=True)}
    return Drawn(drawn, {"image": [*chosen], **by_method}, runs=group.keys_of_trained)


def most_different(confidences: NDArray[Any], targets: Tensor, count: int) -> list[int]:
    """Images about which the methods differ most, one of a class.

    Args:
        confidences: (methods, N) of the true class.
        targets: (N,) true classes.
        count: how many, at most.
    """
    first_of_class: dict[int, int] = {}
    for number in (-confidences.std(0)).argsort(kind="stable").tolist():
        first_of_class.setdefault(int(targets[number]), number)
    return list(first_of_class.values())[:count]
