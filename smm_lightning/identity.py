"""Which part of a configuration decides about a run's result: one list, for run keys and reports.

Everything decides unless it is named here, so a new field is part of a run's key by default.
Plain data: no torch, no Hydra.
"""

from collections.abc import Mapping
from typing import Any

from smm_lightning.errors import problem

# What changes neither the numbers of a run nor what it writes into result.json.
_LEFT_OUT = (
    *("hydra", "paths", "logger", "force", "report"),
    *("isolated", "threads", "stall_minutes", "objective", "panels_every_n_epochs"),
    *("compiled", "fused_attention"),  # speed: sums in another order, as on another machine
)
_LEFT_OUT_OF = {
    "trainer": ("accelerator", "devices", "enable_progress_bar", "enable_model_summary"),
    "dataset": ("num_workers", "build_workers", "banks", "residency", "evaluation_batch_size"),
    "backbone": ("folded", "channels_last", "fast_stem"),
}
# Callbacks that watch a training and leave it as it is; every other one takes part in the result.
_WATCHING = {
    "smm_lightning.callbacks.": ("BestCheckpoint", "EpochRecorder", "LastCheckpoint", "Panels"),
    "lightning.pytorch.callbacks.": (
        *("DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary"),
        *("OnExceptionCheckpoint", "ProgressBar", "RichModelSummary", "RichProgressBar"),
        *("TQDMProgressBar", "ThroughputMonitor"),
    ),
}


def decisive_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides about the result.

    Args:
        config: nested, of plain values.
    """
    decisive = {name: value for name, value in config.items() if name not in _LEFT_OUT}
    for group, left_out in _LEFT_OUT_OF.items():
        fields = decisive.get(group) or {}
        decisive[group] = {name: value for name, value in fields.items() if name not in left_out}
    _drop_rates_of_what_is_not_there(decisive)
    callbacks = decisive.pop("callbacks", None) or {}
    acting = {name: node for name, node in callbacks.items() if not _only_watches(node)}
    return {**decisive, "callbacks": acting} if acting else decisive


def _drop_rates_of_what_is_not_there(decisive: dict[str, Any]) -> None:
    """A method without a mask generator, or without a pattern, does not depend on its rates."""
    method = decisive.get("method") or {}
    optimizer = dict(decisive.get("optimizer") or {})
    if "layers" not in method:
        optimizer.pop("mask_generator", None)
        decisive.pop("mask_generator_layers", None)
    if method.get("learn_pattern") is False:
        optimizer.pop("pattern", None)
    decisive["optimizer"] = optimizer


def require_noted_images(result: Mapping[str, Any], where: str) -> None:
    """A result says which images it was made with.

    Args:
        result: content of a ``result.json``.
        where: the run, for the message.

    Raises:
        UserError: If it does not.
    """
    if not {"images", "class_names"} <= result.keys():
        what = "was written by an older version, which did not note its images"
        raise problem(where, what, cure="force=true runs it anew.")


def changed_images(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between the images of a run and those of now, in words; empty if nothing does.

    Args:
        then: ``images`` by splits (see ``ImageDataModule.images``) and ``class_names``.
        now: likewise.
    """
    before, after = then["class_names"], now["class_names"]
    found = []
    if before != after:
        gone = [name for name in before if name not in after]
        new = [name for name in after if name not in before]
        details = [
            f"{word} {', '.join(names)}" for word, names in (("without", gone), ("new", new))
        ]
        named = "; ".join(d for d, names in zip(details, (gone, new), strict=True) if names)
        found.append(f"other classes ({named or 'in another order'})")
    for split in dict.fromkeys([*then["images"], *now["images"]]):
        one, other = then["images"].get(split), now["images"].get(split)
        if one is None or other is None:
            found.append(f"{split} is {'new' if one is None else 'gone'}")
        elif one["digest"] != other["digest"]:
            found.append(f"other images in {split} ({one['images']} then, {other['images']} now)")
    return ", ".join(found)


def _only_watches(callback: Any) -> bool:
    if callback is None:
        return True
    target = str(callback.get("_target_"))
    return any(
        target.startswith(package) and target.rpartition(".")[2] in names
        for package, names in _WATCHING.items()
    )
