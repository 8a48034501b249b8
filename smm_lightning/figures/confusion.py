"""Which classes are taken for which."""

import numpy as np
from torchmetrics.functional.classification import multiclass_confusion_matrix

from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import heat_map
from smm_lightning.figures.trained import TrainedRun


@figure(
    "confusion",
    of="run",
    caption="Test images of each class by the class that is predicted, in percent of the row.",
)
def confusion(trained: TrainedRun) -> Drawn:
    """True classes by predicted classes of all test images."""
    names = trained.class_names
    answers = trained.answers("test", np.arange(len(trained.labels("test"))))
    counts = multiclass_confusion_matrix(answers.logits, answers.targets, len(names))
    percentages = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
    title = f"Test images (%): {trained.run.title}"
    drawn = heat_map(percentages.numpy(), names, names, title, "predicted class")
    return Drawn(drawn, {"names": np.array(names), "counts": counts.numpy()})
