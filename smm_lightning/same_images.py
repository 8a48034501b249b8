"""Whether a finished run was made with the images that are there now."""

from typing import Any

from omegaconf import DictConfig

from smm_lightning.assembly import build, datamodule
from smm_lightning.errors import problem
from smm_lightning.run.images import changed_images, require_noted_images
from smm_lightning.run_folder import RunFolder


def require_same_images(cfg: DictConfig, run: RunFolder, result: dict[str, Any]) -> None:
    """Compare the images of a result with those of now.

    Names, sizes and times of the files are compared first; where one of these differs, the pixels.
    Equal relative names, classes and pixels are equal images, wherever they lie. A result whose
    images are no longer there stands, with a line.

    Args:
        cfg: of the run.
        run: its folder.
        result: content of its ``result.json``.

    Raises:
        UserError: If the images are others, in a line that says what changed.
    """
    cure = "force=true runs it anew; another paths.root keeps both."
    require_noted_images(result, str(run.path))
    data = build(cfg, "dataset")  # of whatever size: only its files are looked at
    if not data.source.is_there():
        print(f"{run.path.name}: its images are not here, so they were not compared", flush=True)
        return
    if data.stamps() == {split: facts["stamp"] for split, facts in result["images"].items()}:
        return
    data = datamodule(cfg)
    data.setup()
    changed = changed_images(result, data.taken)
    if changed:
        raise problem(str(run.path), f"was finished with other images: {changed}", cure=cure)
