"""Which source classes the images of each target class are seen as."""

from collections.abc import Mapping, Sequence
from typing import Any

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
    # One source may be the heaviest of several classes.
    chosen = {source["index"]: _short(source["name"]) for source in heaviest}
    counts = predicted[list(chosen)].T  # targets by chosen sources
    fractions = counts / predicted.sum(0).clamp(min=1)[:, None]
    names = [f"{row['target']} \N{LEFTWARDS ARROW} {_sources(row['sources'])}" for row in rows]
    sources = list(chosen.values())
    title = f"Images seen as each source (%): {trained.run.title}"
    drawn = heat_map(100 * fractions.numpy(), names, sources, title, "source class")
    return Drawn(drawn, {"names": np.array(names), "counts": counts.numpy()})


def _sources(sources: Sequence[Mapping[str, Any]]) -> str:
    """The source class of a one-to-one mapping; of others the two heaviest with their weights."""
    if len(sources) == 1 and sources[0]["weight"] == 1:
        return _short(sources[0]["name"])
    return ", ".join(f"{_short(one['name'])} {one['weight']:.2f}" for one in sources[:2])


def _short(name: str) -> str:
    return name.split(",", maxsplit=1)[0]  # the first synonym
