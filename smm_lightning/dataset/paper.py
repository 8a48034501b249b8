"""From a name in the catalog to its source."""

from pathlib import Path

from smm_lightning.catalog import CATALOG
from smm_lightning.dataset.coop import CoOp
from smm_lightning.dataset.torchvision_sources import TorchvisionArrays, TrafficSigns


def source_of(name: str, root: Path | str) -> CoOp | TorchvisionArrays | TrafficSigns:
    """The source of a dataset of the paper.

    Args:
        name: of a row of the catalog.
        root: the folder of all data.
    """
    if CATALOG[name].coop:
        return CoOp(name, str(root))
    if name == "gtsrb":
        return TrafficSigns(str(root))
    return TorchvisionArrays(name, str(root))
