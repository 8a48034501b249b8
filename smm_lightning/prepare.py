"""``smm prepare``: which datasets are here, complete, and what is missing.

Without names all twelve datasets of the paper are looked at; a folder of one's own is looked at as
a run would read it. The exit status is 0 if all of them are usable, 1 if not.
"""

import argparse
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from smm_lightning.catalog import CATALOG
from smm_lightning.errors import Problems, UserError, did_you_mean, problem


@dataclass
class Finding:
    """What was found of one dataset.

    Args:
        name: of the dataset.
        counts: images of each split, and classes; empty if the dataset cannot be loaded.
        differences: lines for numbers that are not those of Table 6.
        problems: lines for what is missing or broken.
    """

    name: str
    counts: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        """In a word."""
        if not self.counts:
            return "missing"
        return "broken" if self.problems else "differs" if self.differences else "complete"

    def row(self) -> list[str]:
        """Cells of the table."""
        facts = CATALOG[self.name]
        cells = [str(self.counts.get(key, "-")) for key in ("train", "val", "test", "classes")]
        return [self.name, self.state, *cells, f"{facts.train} / {facts.test} / {facts.classes}"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see the module's description.

    Args:
        arguments: of the command line.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    folders = [name for name in options.names if name not in CATALOG and Path(name).is_dir()]
    names = [name for name in options.names if name not in folders]
    try:
        datasets = _checked(names) if names or not folders else []
        status = max([_own_folder(Path(folder), options) for folder in folders], default=0)
        findings = [_examined(name, options) for name in datasets]
    except UserError as error:
        for line in error.problems:
            print(f"error: {line}", file=sys.stderr)
        return 2
    if findings:
        _print(findings)
    wrong = [f for f in findings if f.problems or (options.strict and f.differences)]
    return max(status, int(bool(wrong)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    known = ", ".join(CATALOG)
    parser.add_argument("names", nargs="*", metavar="dataset", help=f"a folder, or: {known}")
    default = os.environ.get("SMM_DATA", "data")
    parser.add_argument("--data", type=Path, default=Path(default), help="the folder of all data")
    parser.add_argument("--download", action="store_true", help="fetch what torchvision can fetch")
    parser.add_argument("--decode", action="store_true", help="decode every image, list the broken")
    parser.add_argument("--strict", action="store_true", help="numbers must be those of Table 6")
    parser.add_argument("--groups", help="of a folder: as dataset.source.groups")
    parser.add_argument("--videos", type=Path, help="ucf101: extract middle frames from here")
    return parser


def _own_folder(folder: Path, options: argparse.Namespace) -> int:
    from smm_lightning.dataset import ImageFolder
    from smm_lightning.dataset.datamodule import usable_cpus
    from smm_lightning.dataset.inspection import inspect

    found = inspect(ImageFolder(str(folder), groups=options.groups), usable_cpus())
    width = max((len(name) for _, name, _ in found.rows), default=0)
    for split, name, count in found.rows:
        print(f"{split:6} {name:{width}} {count:>7,}")
    for line in found.facts:
        print(line)
    for split, reasons in found.left_out.items():
        for reason, count in reasons.items():
            print(f"left out      {split}: {count} {reason}")
    for line in found.notes:
        print(f"note          {line}")
    for line in found.problems:
        print(f"wrong         {line}")
    print("A run can use it." if not found.problems else "A run would stop, or be misled.")
    return int(bool(found.problems))


def _checked(names: list[str]) -> list[str]:
    for name in names:
        if name not in CATALOG:
            raise problem("dataset", "unknown", name, did_you_mean(name, CATALOG))
    return names or list(CATALOG)


def _examined(name: str, options: argparse.Namespace) -> Finding:
    finding = Finding(name)
    problems = Problems()
    if options.download:
        with problems.caught():
            _download(name, options.data)
    if options.videos and name == "ucf101":
        with problems.caught():
            problems.found += _extract(options.data, options.videos)
    with problems.caught():
        _count(finding, options)
    finding.problems = problems.found + finding.problems
    return finding


def _count(finding: Finding, options: argparse.Namespace) -> None:
    from smm_lightning.dataset.datamodule import usable_cpus
    from smm_lightning.dataset.image_bank import broken_images
    from smm_lightning.dataset.paper import source_of

    source = source_of(finding.name, options.data)
    source.listings()  # finds files that are listed and not there
    splits = source.load()
    counts = {part: len(split) for part, split in splits.parts().items()}
    finding.counts = {**counts, "classes": len(splits.class_names)}
    for key in ("train", "test", "classes"):
        expected = getattr(CATALOG[finding.name], key)
        if finding.counts[key] != expected:
            found = finding.counts[key]
            finding.differences.append(f"{finding.name}: {key} {found}, in Table 6 {expected}")
    if options.decode:
        for split in splits.parts().values():
            finding.problems += broken_images(split, usable_cpus())


def _download(name: str, data: Path) -> None:
    from smm_lightning.dataset.paper import source_of

    data.mkdir(parents=True, exist_ok=True)
    try:
        source_of(name, data).download()
    except (OSError, RuntimeError) as error:  # no network, a dead link, another checksum
        message = " ".join(str(error).split())
        raise problem(name, f"the download failed ({message})") from error


def _extract(data: Path, videos: Path) -> list[str]:
    from rich.console import Console
    from rich.progress import track

    from smm_lightning.dataset.middle_frames import extract_middle_frames

    layout = CATALOG["ucf101"].coop
    assert layout is not None
    images = data / layout.folders[0]
    split_file = images.parent / layout.split
    if not split_file.is_file():
        cure = f"Fetch it from {layout.split_url}."
        raise problem("ucf101", "the split file is missing", str(split_file), cure)
    console = Console(stderr=True)
    frames = extract_middle_frames(split_file, videos, images)
    shown = track(frames, "Extracting middle frames", console=console)
    return [line for lines in shown for line in lines]


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("dataset", "state", "train", "val", "test", "classes", "Table 6"):
        table.add_column(column, justify="left" if column in ("dataset", "state") else "right")
    for finding in findings:
        table.add_row(*finding.row())
    Console(width=100).print(table)
    for line in (line for f in findings for line in [*f.problems, *f.differences]):
        print(line)
