"""The other side: the published code, unmodified, on the same images.

Its script runs as it is, as a program. Around it lie: our images where it opens CIFAR-10, random
weights where it downloads some, few epochs instead of 200, and clocks around its loaders and its
mapping pass. Its tensorboard writer writes nothing.
"""

import os
import runpy
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torchvision
from PIL import Image

from smm_lightning.benchmark.measure import now, peak_memory
from smm_lightning.benchmark.setting import RandomImages, Setting

_SCRIPT = "instancewise_vp.py"
_NETWORKS = {"resnet18": "resnet18", "resnet50": "resnet50", "vit_b32": "ViT_B32"}


def refusal(setting: Setting) -> str | None:
    """Why the published code cannot do the same work, if it cannot."""
    if setting.backbone not in _NETWORKS:
        return f"the published code has no {setting.backbone}"
    size = 384 if setting.backbone == "vit_b32" else 224
    if setting.method != "smm" or setting.width != 8 or setting.size not in (None, size):  # noqa: PLR2004
        return f"the published code has only smm of width 8 at {size}"
    if not (Path(setting.peer or "") / _SCRIPT).is_file():
        return f"{setting.peer} holds no {_SCRIPT}"
    return None


def measure(setting: Setting) -> dict[str, Any]:
    """As :func:`training.measure`."""
    folder = Path(setting.peer or "").resolve()
    clock = _Clock(setting)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    _replace_writer()
    _replace_networks()
    _replace_images(setting)
    import cfg  # type: ignore[import-not-found]
    import data  # type: ignore[import-not-found]
    import labelmapping  # type: ignore[import-not-found]

    layers, _, *rates = cfg.get_config(_NETWORKS[setting.backbone])
    cfg.get_config = lambda _: (layers, setting.epochs, *rates)
    cfg.results_path = f"{Path(setting.work).resolve()}/"
    prepare, generate = data.prepare_additive_data, labelmapping.generate_label_mapping_by_frequency
    data.prepare_additive_data = clock.loaders_of(prepare)
    labelmapping.generate_label_mapping_by_frequency = clock.timed_mapping(generate)
    sys.argv = [_SCRIPT, "--network", _NETWORKS[setting.backbone], "--dataset", "cifar10"]
    runpy.run_path(_SCRIPT, run_name="__main__")
    parts = {f"{name}_s": clock.last[name] for name in ("mapping", "training", "test")}
    return {
        **parts,
        "epoch_s": sum(parts.values()),
        "images_per_s": setting.train_images / parts["training_s"],
        "memory_mib": peak_memory(setting.device),
    }


class _Clock:
    """Times passes over its loaders: inside its mapping pass, in training, and in the test."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.last: dict[str, float] = {}
        self._mapping = False

    def timed_mapping(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            self._mapping, start = True, now(self.setting.device)
            result = generate(*arguments)
            self.last["mapping"] = now(self.setting.device) - start
            self._mapping = False
            return result

        return timed

    def loaders_of(self, prepare: Callable[..., Any]) -> Callable[..., Any]:
        def prepared(*arguments: Any, **options: Any) -> Any:
            batch = self.setting.peer_batch or self.setting.batch
            loaders, names = prepare(*arguments, **options, batch_size=batch)
            parts = {"train": "training", "test": "test"}
            return {key: _Timed(loader, parts[key], self) for key, loader in loaders.items()}, names

        return prepared

    def note(self, part: str, seconds: float) -> None:
        if not self._mapping:
            self.last[part] = seconds

    def read(self) -> float:
        return now(self.setting.device)


class _Timed:
    def __init__(self, loader: Any, part: str, clock: _Clock) -> None:
        self.loader, self.part, self.clock = loader, part, clock

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        start = self.clock.read()
        yield from self.loader
        self.clock.note(self.part, self.clock.read() - start)


def _replace_images(setting: Setting) -> None:
    class OurImages(torch.utils.data.Dataset[Any]):
        """Reads as torchvision's CIFAR10 does: an array in memory, a PIL image at a time."""

        def __init__(self, root: str, *, train: bool, download: bool, transform: Any) -> None:  # noqa: ARG002
            counts = setting.train_images, setting.test_images
            source = RandomImages(*counts, setting.classes)
            self.images, self.targets = source.arrays("train" if train else "test")
            self.classes = [str(number) for number in range(setting.classes)]
            self.transform = transform

        def __len__(self) -> int:
            return len(self.targets)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return self.transform(Image.fromarray(self.images[index])), int(self.targets[index])

    torchvision.datasets.CIFAR10 = OurImages


def _replace_networks() -> None:
    for name in ("resnet18", "resnet50"):
        build = getattr(torchvision.models, name)
        setattr(torchvision.models, name, lambda weights, build=build: build())  # noqa: ARG005
    try:
        import pytorch_pretrained_vit as vit  # type: ignore[import-not-found]
    except ImportError:
        return
    real = vit.ViT
    vit.ViT = lambda name, pretrained: real(name, pretrained=False, image_size=384)  # noqa: ARG005


def _replace_writer() -> None:
    class Silent:
        def __init__(self, *_: Any) -> None: ...
        def add_scalar(self, *_: Any) -> None: ...

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Silent  # type: ignore[attr-defined]
    sys.modules["torch.utils.tensorboard"] = module
