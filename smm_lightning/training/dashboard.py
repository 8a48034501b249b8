"""``smm dashboard <entity> <project>``: a wandb workspace for grids.

Prints its JSON; ``--save`` makes the workspace on the server and prints its address.
"""

import argparse
from typing import Any

from smm_lightning.errors import from_extra


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("entity", help="user or team on the server")
    parser.add_argument("project", nargs="?", default="smm-lightning")
    parser.add_argument("--save", action="store_true", help="make it on the server (needs a key)")
    options = parser.parse_args()
    with from_extra("dashboard", "dashboard"):
        made = workspace(options.entity, options.project)
    if options.save:
        made.save()
        print(made.url)
    else:
        print(made._to_model().model_dump_json(by_alias=True, indent=2))


def workspace(entity: str, project: str) -> Any:
    """Curves, bars and pictures, runs grouped by grid and method.

    Args:
        entity: user or team.
        project: of the runs.
    """
    import wandb_workspaces.workspaces as parts

    grouped: list[Any] = [parts.Config("dataset.name"), parts.Config("method.name")]
    return parts.Workspace(
        entity=entity,
        project=project,
        name="Visual reprogramming",
        sections=[parts.Section(name=n, panels=p, is_open=True) for n, p in _sections().items()],
        runset_settings=parts.RunsetSettings(groupby=grouped),
    )


def _sections() -> dict[str, Any]:
    from wandb_workspaces.reports.v2 import interface as panels

    def curve(title: str, *names: str) -> Any:
        return panels.LinePlot(title=title, x="epoch", y=list(names))

    def bars(title: str, name: str) -> Any:
        return panels.BarPlot(title=title, metrics=[name], groupby="config.method.name")

    colours = ("red", "green", "blue")
    masks = [
        curve(f"Mask, {word}", *(f"mask/{word}_{colour}" for colour in colours))
        for word in ("mean", "std", "near_zero")
    ]
    return {
        "Accuracy": [
            bars("Test accuracy, last epoch", "test/acc_last"),
            bars("Test accuracy, best epoch on val", "test/acc_best_val"),
            curve("Accuracy on held-out images", "val/acc"),
            curve("Test accuracy, where it is watched", "test/acc"),
            curve("Training accuracy", "train/acc"),
            curve("Training loss", "train/loss"),
        ],
        "Masks": [
            panels.MediaBrowser(title="Masks", media_keys=["pictures/masks"], num_columns=2),
            panels.MediaBrowser(media_keys=["pictures/masks_equalised"], num_columns=2),
            *masks,
        ],
        "Label mapping": [
            curve("Classes that changed their source", "mapping/changed"),
            panels.MediaBrowser(title="Mapping", media_keys=["mapping/table"]),
        ],
        "Speed": [
            curve("Seconds an epoch", "time/epoch_s"),
            curve("Images a second", "time/images_per_s"),
            curve("Seconds of counting", "time/mapping_s"),
        ],
    }
