"""What a run would take from a user's own folder of images, and what is wrong with it."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from smm_lightning.dataset.decoding import pixel_hash
from smm_lightning.dataset.image_files import CLOSED
from smm_lightning.dataset.image_folder import ONE_CLASS, ImageFolder
from smm_lightning.dataset.splits import FileSplit, Splits
from smm_lightning.errors import UserError

_SHOWN = 5  # sizes, and examples of a kind
_GREY = ("1", "L", "LA")


@dataclass(frozen=True)
class Seen:
    """One image.

    Attributes:
        size: width and height as stored, in pixels.
        mode: Pillow's name of its pixel format.
        turned: whether its camera noted that it does not lie upright.
        transparent: whether it may be.
        pixels: see :func:`pixel_hash`.
        problem: why a run could not use it; empty if it can.
    """

    size: tuple[int, int] = (0, 0)
    mode: str = "unknown"
    turned: bool = False
    transparent: bool = False
    pixels: bytes = b""
    problem: str = ""


@dataclass
class Inspection:
    """A folder, looked at as a whole.

    Attributes:
        rows: split, class and number of images, in the order of a run.
        left_out: what is not taken, by split and reason.
        facts: lines about sizes, pixel formats and kinds of images.
        notes: lines about what may be meant as it is.
        problems: lines about what is wrong.
    """

    rows: list[tuple[str, str, int]] = field(default_factory=list)
    left_out: dict[str, Mapping[str, int]] = field(default_factory=dict)
    facts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def inspect(source: ImageFolder, workers: int) -> Inspection:
    """Look at every image as a run would.

    Args:
        source: the folder.
        workers: processes that decode.
    """
    report = Inspection()
    try:
        splits = source.load()
    except UserError as error:
        report.problems += error.problems
        return report
    everything: list[tuple[str, int, str, Seen]] = []  # split, class, name, and what was seen
    for part, split in splits.parts().items():
        assert isinstance(split, FileSplit)
        _count(part, split, splits.class_names, report)
        for index, seen in enumerate(_looked_at(split, workers)):
            everything.append((part, int(split.labels[index]), split.names[index], seen))
            if seen.problem:
                report.problems.append(seen.problem)
    _shared_objects(splits, report)
    usable = [entry for entry in everything if not entry[3].problem]
    report.facts = _facts([seen for *_, seen in everything])
    _duplicates(usable, report)
    return report


def _count(part: str, split: FileSplit, class_names: list[str], report: Inspection) -> None:
    """Images of each class, what is left out, and what is not there."""
    counts = Counter(split.labels.tolist())
    report.rows += [(part, name, counts[label]) for label, name in enumerate(class_names)]
    report.left_out[part] = split.left_out
    if split.left_out.get(CLOSED):
        report.problems.append(f"{part}: {split.left_out[CLOSED]} {CLOSED}")
    if part == "train" and len(class_names) == 1:
        report.problems.append(f"train has one class only, {class_names[0]}. {ONE_CLASS}")
    absent = [name for label, name in enumerate(class_names) if not counts[label]]
    if not len(split):
        report.problems.append(f"{part}: has no images")
    elif absent:
        kind = report.problems if part == "train" else report.notes
        kind.append(f"{part} has no images of {', '.join(absent)}")


def _shared_objects(splits: Splits, report: Inspection) -> None:
    for (one, left), (other, right) in itertools.combinations(splits.parts().items(), 2):
        shared = sorted(left.objects() & right.objects())
        if shared:
            what = f"objects with images in {one} and {other}"
            report.problems.append(f"{len(shared)} {what}: {', '.join(shared[:_SHOWN])}")


class _Inspected(Dataset[Seen]):
    def __init__(self, split: FileSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Seen:
        try:
            pixels = pixel_hash(self.split.read(index))
            problem = ""
        except UserError as error:
            pixels, problem = b"", error.problems[0]
        try:
            with Image.open(self.split.root / self.split.names[index]) as image:
                turned = image.getexif().get(0x0112, 1) != 1
                transparent = image.has_transparency_data
                return Seen(image.size, image.mode, turned, transparent, pixels, problem)
        except Exception:
            return Seen(pixels=pixels, problem=problem)


def _looked_at(split: FileSplit, workers: int) -> Iterator[Seen]:
    workers = workers if len(split) > 512 else 0  # noqa: PLR2004 - processes take a second to start
    yield from DataLoader(_Inspected(split), batch_size=None, num_workers=workers)


def _facts(images: Sequence[Seen]) -> list[str]:
    sizes = Counter(seen.size for seen in images).most_common()
    shown = ", ".join(f"{width} x {height} ({n})" for (width, height), n in sizes[:_SHOWN])
    more = f" and {len(sizes) - _SHOWN} more" if len(sizes) > _SHOWN else ""
    modes = ", ".join(f"{m} ({n})" for m, n in Counter(s.mode for s in images).most_common())
    lines = [f"sizes         {shown}{more}", f"pixel formats {modes}"]
    kinds = {
        "grey": sum(seen.mode in _GREY for seen in images),
        "with more than 8 bits": sum(seen.mode.startswith(("I", "F")) for seen in images),
        "turned by the camera's note": sum(seen.turned for seen in images),
        "with transparency": sum(seen.transparent for seen in images),
    }
    named = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    return [*lines, *([f"of these      {named}"] if named else [])]


def _duplicates(images: Sequence[tuple[str, int, str, Seen]], report: Inspection) -> None:
    """Images with equal pixels: in two splits or classes they are wrong, else worth a note."""
    alike: dict[bytes, list[tuple[str, int, str]]] = defaultdict(list)
    for part, label, name, seen in images:
        alike[seen.pixels].append((part, label, name))
    kinds: dict[str, list[str]] = defaultdict(list)
    for group in alike.values():
        if len(group) > 1:
            parts, labels = {part for part, _, _ in group}, {label for _, label, _ in group}
            if len(labels) > 1:
                kinds["equal images of different classes"].append(_pair(group))
            elif len(parts) > 1:
                kinds["equal images in two splits"].append(_pair(group))
            else:
                kinds["equal images in one split"].append(_pair(group))
    for kind, pairs in kinds.items():
        more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
        line = f"{len(pairs)} x {kind}: {', '.join(pairs[:_SHOWN])}{more}"
        (report.notes if kind.endswith("one split") else report.problems).append(line)


def _pair(group: Sequence[tuple[str, int, str]]) -> str:
    return " = ".join(f"{part}/{name}" for part, _, name in group[:2])
