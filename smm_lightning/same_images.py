"""Whether a finished run was made with the images that are there now."""

from pathlib import Path
from typing import Any

from smm_lightning.assembly import Node, build, build_data
from smm_lightning.errors import problem
from smm_lightning.run.images import changed_images, require_noted_images


def require_same_images(
    folder: str, backbone: Node, method: Node, dataset: Node, result: dict[str, Any]
) -> None:
    """Compare the images of a result with those of now.

    Names, sizes and times of the files are compared first; where one of these differs, the pixels.
    Equal relative names, classes and pixels are equal images, wherever they lie. A result whose
    images are no longer there stands, with a line.

    Args:
        folder: of the run.
        backbone: its node in the run's configuration.
        method: likewise.
        dataset: likewise.
        result: content of its ``result.json``.

    Raises:
        UserError: If the images are others, in a line that says what changed.
    """
    cure = "force=true runs it anew; another paths.root keeps both."
    require_noted_images(result, folder)
    data = build(dataset, "dataset")  # of whatever size: only its files are looked at
    if not data.source.is_there():
        print(
            f"{Path(folder).name}: its images are not here, so they were not compared", flush=True
        )
        return
    if data.stamps() == {split: facts["stamp"] for split, facts in result["images"].items()}:
        return
    data = build_data(backbone, method, dataset)
    data.setup()
    changed = changed_images(result, data.taken)
    if changed:
        raise problem(folder, f"was finished with other images: {changed}", cure=cure)
