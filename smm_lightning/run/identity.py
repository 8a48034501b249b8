"""Who a run is: the settings that decide about its result, their key, and the run's name.

Everything decides unless it is named here, so a new field is part of a run's key by default.
"""

import hashlib
import json
import pickle
import re
from collections.abc import Hashable, Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from smm_lightning.ranges import PRECISIONS

# What changes neither the numbers of a run nor what it writes into result.json.
_LEFT_OUT = (
    *("hydra", "paths", "logger", "force", "report", "tags", "notes", "vars"),
    "recipe",  # its values are those of the groups that take them
    *("threads", "stall_minutes", "objective", "panels_every_n_epochs"),
    # Speed and memory: sums in another order, as on another machine.
    *("compiled", "fused_attention", "micro_batch"),
)
_LEFT_OUT_OF = {
    "trainer": (
        *("accelerator", "devices", "num_nodes", "strategy"),
        *("benchmark", "profiler", "detect_anomaly", "enable_model_summary"),
    ),
    "dataset": (
        *("num_workers", "build_workers", "image_cache", "residency", "evaluation_batch_size"),
        *("facts", "source.split_url", "source.images_url", "source.torchvision"),
    ),
    "backbone": ("folded", "channels_last", "fast_stem"),
    "method": ("look",),
}
_WITHOUT_PATTERN = ("smm_lightning.method.NoPrompt",)
_WITHOUT_MASK_GENERATOR = (
    *("smm_lightning.method.PadPrompt", "smm_lightning.method.FramePrompt"),
    *_WITHOUT_PATTERN,
)
_COUNTED = tuple(
    f"smm_lightning.mapping.{name}"
    for name in ("OneToOneMapping", "RandomMapping", "BayesianMapping")
)
_STRICT = "strict"
_MARK = "<the seed of a run>"
_NO_ADAPTER = "smm_lightning.backbone.NoAdapter"
# Callbacks that watch a training and leave it as it is; every other one takes part in the result.
_WATCHING = {
    "smm_lightning.training.": (
        *("BestCheckpoint", "EpochRecorder", "LastCheckpoint", "PromptRecorder"),
        *("TensorBoardPanels", "WandbPanels"),
    ),
    "lightning.pytorch.callbacks.": (
        *("DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary"),
        *("OnExceptionCheckpoint", "ProgressBar", "RichModelSummary", "RichProgressBar"),
        *("TQDMProgressBar", "ThroughputMonitor"),
    ),
}


def identity(config: DictConfig) -> dict[str, Any]:
    """The resolved settings that decide about a run's result; reports compare the same.

    Where data and runs lie is left open: equal images are equal wherever they are.

    Args:
        config: composed.
    """
    settled = copied(config)
    OmegaConf.set_readonly(settled, value=False)
    OmegaConf.set_struct(settled, value=False)
    settled.pop("hydra", None)
    settled.paths = {name: f"<paths.{name}>" for name in settled.get("paths") or {}}
    settled.logger = None
    return decisive_part(cast("dict[str, Any]", OmegaConf.to_container(settled, resolve=True)))


def copied(config: DictConfig) -> DictConfig:
    """A whole configuration once more, in an eighth of the time of its own ``copy``."""
    if "hydra" in config:  # whose classes do not always pickle
        return config.copy()
    copy: DictConfig = pickle.loads(pickle.dumps(config, pickle.HIGHEST_PROTOCOL))  # noqa: S301 - ours
    return copy


def run_key(config: DictConfig) -> str:
    """Eight characters that are the same for the same :func:`identity`."""
    return _key(_text(config))


def _text(config: DictConfig) -> str:
    return json.dumps(identity(config), sort_keys=True, default=str)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class RunKeys:
    """:func:`run_key` of many configurations, of which those that differ in the seed share work.

    Resolving a configuration takes most of the time of a report. Where everything that follows the
    seed is the seed itself, the text of a key is made with a mark in its place.
    """

    def __init__(self) -> None:
        self._texts: dict[Hashable, str | None] = {}

    def key(self, config: DictConfig, shared: Hashable) -> str:
        """The same as :func:`run_key`.

        Args:
            config: composed.
            shared: equal for configurations that differ in ``seed`` alone.
        """
        if shared not in self._texts:
            self._texts[shared] = self._marked(config)
        text = self._texts[shared]
        if text is None:
            return run_key(config)
        return _key(text.replace(json.dumps(_MARK), json.dumps(config.seed)))

    def _marked(self, config: DictConfig) -> str | None:
        """``None`` where something is, or may be, made of the seed."""
        if not _only_seeds(OmegaConf.to_container(config, resolve=False)):
            return None
        marked = copied(config)
        marked.seed = _MARK
        try:
            text = _text(marked)
        except OmegaConfBaseException:  # a resolver that takes numbers
            return None
        return text if text.count(_MARK) == text.count(json.dumps(_MARK)) else None


def _only_seeds(node: Any, name: str = "") -> bool:
    """Whether what asks for a seed is a seed itself, so that nothing does so by another name."""
    if isinstance(node, Mapping):
        return all(_only_seeds(inner, str(key)) for key, inner in node.items())
    if isinstance(node, list):
        return all(_only_seeds(inner) for inner in node)
    if not isinstance(node, str) or not re.search(r"\$\{.*seed", node, re.DOTALL):
        return True
    return name.endswith("seed") and bool(re.fullmatch(r"\$\{[\w.]*seed\}", node))


def run_name(config: DictConfig, key: str | None = None) -> str:
    """Folder of a run, such as ``digits-smm-efficientnet_lite0-ilm-s0-1f2e3d4c``.

    The same configuration gives the same folder, so repeating a command finds its run again.

    Args:
        config: composed.
        key: :func:`run_key` of it, where it is known.
    """
    groups = ("dataset", "method", "backbone", "mapping", "adapter")
    names = [(config.get(group) or {}).get("name") for group in groups]
    if names[-1] in (None, "none"):
        names.pop()
    readable = "-".join(re.sub(r"[^\w.]+", "_", str(name)) for name in names)
    return f"{readable}-s{config.seed}-{key or run_key(config)}"


def decisive_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that decides about the result.

    Args:
        config: nested, of plain values.
    """
    decisive = {name: value for name, value in config.items() if name not in _LEFT_OUT}
    for group, left_out in _LEFT_OUT_OF.items():
        decisive[group] = _without(decisive.get(group) or {}, left_out)
    if (precision := str(decisive["trainer"].get("precision"))) in PRECISIONS:
        decisive["trainer"]["precision"] = PRECISIONS[precision]
    # What a protocol sets stands in `dataset`; what else it decides is which epoch is the best.
    protocol = (decisive.pop("protocol", None) or {}).get("name")
    if protocol not in (None, _STRICT):
        decisive["protocol"] = protocol
    _drop_what_is_not_there(decisive)
    callbacks = decisive.pop("callbacks", None) or {}
    acting = {name: node for name, node in callbacks.items() if not _only_watches(node)}
    return {**decisive, "callbacks": acting} if acting else decisive


def _without(
    node: Mapping[str, Any], left_out: tuple[str, ...], prefix: str = ""
) -> dict[str, Any]:
    return {
        name: _without(value, left_out, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in node.items()
        if f"{prefix}{name}" not in left_out
    }


def _drop_what_is_not_there(decisive: dict[str, Any]) -> None:
    """Nothing depends on the settings of a part, or of a few-shot draw, that is not there."""
    method, optimizer = decisive.get("method") or {}, decisive.get("optimizer") or {}
    absent = set()
    if method.get("_target_") in _WITHOUT_MASK_GENERATOR:
        absent.add("mask_generator")
        decisive.pop("mask_generator_layers", None)
    if method.get("learn_pattern") is False or method.get("_target_") in _WITHOUT_PATTERN:
        absent.add("pattern")
    if decisive.get("evaluation_precision") == "same":
        del decisive["evaluation_precision"]
    dataset = decisive.get("dataset") or {}
    if dataset.get("shots") is None:
        dataset = _without(dataset, ("draw", "draw_seed"))
    if dataset.get("observe_test") is False:
        dataset = _without(dataset, ("observe_test",))
    decisive["dataset"] = dataset
    adapter = decisive.get("adapter") or {"_target_": _NO_ADAPTER}
    if adapter.get("_target_") == _NO_ADAPTER:
        absent.add("adapter")
        decisive.pop("adapter", None)
    groups = optimizer.get("groups") or {}
    kept = {name: group for name, group in groups.items() if name not in absent}
    decisive["optimizer"] = {**optimizer, "groups": kept}
    mapping = (decisive.get("mapping") or {}).get("_target_")
    if method.get("_target_") in _WITHOUT_PATTERN and "adapter" in absent and mapping in _COUNTED:
        for name in ("epochs", "optimizer", "scheduler"):  # nothing is trained
            decisive.pop(name, None)
        for name in ("max_epochs", "check_val_every_n_epoch"):
            decisive.get("trainer", {}).pop(name, None)


def _only_watches(callback: Any) -> bool:
    if not isinstance(callback, Mapping):
        return callback is None
    target = str(callback.get("_target_"))
    return any(
        target.startswith(package) and target.rpartition(".")[2] in names
        for package, names in _WATCHING.items()
    )
