"""Which source classes the images of each target class are seen as."""

import numpy as np

from smm_lightning.errors import problem
from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import heat_map
from smm_lightning.figures.trained import TrainedRun


@figure(
    "mapping",
    of="run",
    caption="Training images of each class by the source class that the prompted network "
    "predicts, in percent of the row; the columns are the classes that the mapping chose.",
)
def mapping(trained: TrainedRun) -> Drawn | None:
    """How often each chosen source class is predicted for each target class."""
    rows = trained.result["mapping"]
    if not all(row["sources"] for row in rows):  # of features
        return None
    heaviest = [row["sources"][0] for row in rows]
    predicted = trained.counts("train")
    if not all(0 <= source["index"] < len(predicted) for source in heaviest):
        raise problem(
            str(trained.run.folder), "its mapping names source classes that are not there"
        )
    counts = predicted[[source["index"] for source in heaviest]].T  # targets by chosen sources
    fractions = counts / predicted.sum(0).clamp(min=1)[:, None]
    sources = [source["name"].split(",", maxsplit=1)[0] for source in heaviest]  # first synonyms
    arrow = " \N{LEFTWARDS ARROW} "
    names = [f"{row['target']}{arrow}{name}" for row, name in zip(rows, sources, strict=True)]
    title = f"Images seen as each source (%): {trained.run.title}"
    drawn = heat_map(100 * fractions.numpy(), names, sources, title, "source class")
    return Drawn(drawn, {"names": np.array(names), "counts": counts.numpy()})
