"""Image-classification datasets of the Hugging Face ``datasets`` library."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from typing_extensions import override

from smm_lightning.dataset.decoding import Decoding, decoded
from smm_lightning.dataset.sources import Source
from smm_lightning.dataset.splits import Split, Splits
from smm_lightning.errors import UserError, did_you_mean, from_extra, one_line, problem
from smm_lightning.files import at


class HubSplit(Split):
    """A split of a ``datasets.Dataset``: an Arrow file that is mapped, not loaded.

    Args:
        name: for messages.
        table: the dataset.
        image_column: with the images; they are decoded when they are read.
        decoding: from stored images to RGB.
        label_column: with class names or numbers.
        class_names: in the order of the class numbers.
    """

    def __init__(
        self,
        name: str,
        table: Any,
        image_column: str,
        label_column: str,
        class_names: list[str],
        decoding: Decoding,
    ) -> None:
        from datasets import Image as ImageFeature

        super().__init__(name, _labels(name, table, label_column, class_names))
        # Decoded by us, as all other images are: the library would turn photographs by itself.
        try:
            self.table = table.cast_column(image_column, ImageFeature(decode=False))
        except Exception as error:  # of Arrow's many
            what = f"holds no images ({one_line(error)[:100]})"
            raise problem(f"{name}: {image_column}", what) from error
        self.image_column = image_column
        self.decoding = decoding

    @property
    @override
    def stamp(self) -> str:
        """See :attr:`Split.stamp`: the library's fingerprint, and which column has the labels."""
        labels = hashlib.sha256(self.labels.tobytes()).hexdigest()
        return f"{self.table._fingerprint} {self.image_column} {labels} {self.decoding}"

    @override
    def read(self, index: int) -> Image.Image:
        stored = self.table[index][self.image_column] or {}
        content = stored.get("bytes") or stored.get("path")
        if not content:
            raise problem(f"{self.name}[{index}]", "has no image")
        content = Path(content) if isinstance(content, str) else content
        return decoded(content, f"{self.name}[{index}]", self.decoding)


class HubDataset(Source):
    """Any image-classification dataset of the Hugging Face ``datasets`` library.

    Args:
        path: a name on the hub (``uoft-cs/cifar10``), or a local folder with parquet files.
        config: of the dataset, where it has several.
        revision: a tag or commit; pin it for results that are to be repeated.
        data_files: patterns per split, for local files.
        image_column: name of the column with the images.
        label_column: name of the column with the classes.
        train: name of the training split.
        test: name of the test split.
        val: name of the validation split, if there is one.
        exif: turn photographs upright, as their camera noted.
        background: colour behind what is transparent; see :class:`Decoding`.

    Raises:
        UserError: If ``path`` is not set.
    """

    name = "hub"

    def __init__(
        self,
        path: str | None,
        config: str | None = None,
        revision: str | None = None,
        data_files: dict[str, str] | None = None,
        image_column: str = "image",
        label_column: str = "label",
        train: str = "train",
        test: str = "test",
        val: str | None = None,
        *,
        exif: bool = True,
        background: str | None = "white",
    ) -> None:
        if path is None:
            hint = "Give a dataset: dataset.source.path=<name on the hub, or local folder>."
            raise problem("dataset.source.path", "is not set", hint=hint)
        self.path = str(at(path)) if path.startswith("~") else path
        self.options = {"name": config, "revision": revision, "data_files": data_files}
        self.decoding = Decoding(exif, background)
        self.columns = {"image_column": image_column, "label_column": label_column}
        self.splits = {"train": train, "test": test} | ({"val": val} if val else {})

    @override
    def is_there(self) -> bool:
        """See :meth:`Source.is_there`: whether it is cached here, or can be fetched."""
        try:
            self._tables()
        except UserError:
            return False
        return True

    @override
    def load(self) -> Splits:
        tables = self._tables()
        for role, split in self.splits.items():
            if split not in tables:
                raise problem(
                    f"dataset.source.{role}", "no such split", split, did_you_mean(split, tables)
                )
        for field, column in self.columns.items():
            for split in self.splits.values():
                known = tables[split].column_names
                if column not in known:
                    hint = did_you_mean(column, known)
                    raise problem(f"dataset.source.{field}", "no such column", column, hint)
        for split in self.splits.values():
            _require_labels(tables[split], split, self.columns["label_column"])
        names = _class_names(tables[self.splits["train"]], self.columns["label_column"])
        parts = {
            role: HubSplit(
                f"hub/{role}",
                tables[split],
                **self.columns,
                class_names=names,
                decoding=self.decoding,
            )
            for role, split in self.splits.items()
        }
        return Splits(parts["train"], parts["test"], parts.get("val"), names)

    def _tables(self) -> Any:
        with from_extra("hub", "dataset=hub"):
            from datasets import load_dataset
        try:
            return load_dataset(self.path, **self.options)
        except Exception as error:  # a missing name, network or file each have a kind of their own
            message = " ".join(str(error).split())
            raise problem(
                "dataset.source.path", f"cannot be loaded ({message})", self.path
            ) from error


def _require_labels(table: Any, split: str, column: str) -> None:
    """A class for each image.

    Raises:
        UserError: If an image has none, or the column holds lists or groups of fields.
    """
    for number, value in enumerate(table[column][:]):
        if value is None:
            raise problem(f"hub/{split}[{number}]", f"has no {column}")
        if isinstance(value, list | dict):
            raise problem(f"hub/{split}[{number}]", f"its {column} is no single class", value)


def _class_names(table: Any, column: str) -> list[str]:
    """Names of a ClassLabel column, else its distinct values in order."""
    names = getattr(table.features[column], "names", None)
    return list(names) if names else [str(value) for value in sorted(table.unique(column))]


def _labels(name: str, table: Any, column: str, class_names: list[str]) -> Any:
    values = table[column][:]
    if getattr(table.features[column], "names", None):
        labels = np.asarray(values, dtype=np.int64)
        if labels.size and not 0 <= labels.min() <= labels.max() < len(class_names):
            raise problem(name, "has images without a class", int(labels.min()))
        return labels
    numbers = {value: number for number, value in enumerate(class_names)}
    unknown = sorted({str(value) for value in values} - numbers.keys())
    if unknown:
        raise problem(name, "has classes that the training split lacks", ", ".join(unknown))
    return np.array([numbers[str(value)] for value in values], dtype=np.int64)
