"""Whether a finished run was made with the images that are there now."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from smm_lightning.run.images import changed_images
from smm_lightning.training.assembly import build, build_data


def images_since(cfg: DictConfig, result: dict[str, Any]) -> str:
    """What differs between the images of a result and those of now; empty if nothing does.

    Names, sizes and times of the files are compared first; where one of these differs, the pixels.
    Equal relative names, classes and pixels are equal images, wherever they lie. A result whose
    images are no longer there stands, with a line.

    Args:
        cfg: the run's configuration.
        result: content of its ``result.json``, or of a table (see :mod:`run.recorded`).

    Raises:
        UserError: If the images of now cannot be read.
    """
    data = build(cfg.dataset, "dataset")  # of whatever size: only its files are looked at
    if not data.source.is_there():
        name = Path(cfg.paths.run).name
        print(f"{name}: its images are not here, so they were not compared", flush=True)
        return ""
    then = {split: facts.get("stamp") for split, facts in result["images"].items()}
    if data.stamps() == then:
        return ""
    data = build_data(cfg.backbone, cfg.method, cfg.dataset)
    data.setup()
    return changed_images(result, data.taken)
