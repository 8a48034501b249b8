"""``smm prepare``: which datasets are here, complete, and what is missing.

Without names all twelve datasets of the paper are looked at. A YAML file of one's own is taken as a
dataset like those in ``conf/dataset``, and a folder is looked at as a run would read it. The exit
status is 0 if all of them are usable, 1 if not.
"""

import argparse
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from smm_lightning.errors import Problems, UserError, did_you_mean, problem
from smm_lightning.run.config import CONF
from smm_lightning.run.declared import check_node

_EXPECTED = ("train", "test", "classes")  # numbers of Table 6


@dataclass
class Finding:
    """What was found of one dataset.

    Args:
        name: of the dataset.
        facts: what is expected: ``train``, ``test``, ``classes``.
        counts: images of each split, and classes; empty if the dataset cannot be loaded.
        differences: lines for numbers that are not those of Table 6.
        problems: lines for what is missing or broken.
    """

    name: str
    facts: dict[str, Any]
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
        cells = [str(self.counts.get(key, "-")) for key in ("train", "val", "test", "classes")]
        expected = " / ".join(str(self.facts[key]) for key in _EXPECTED)
        return [self.name, self.state, *cells, expected]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; see the module's description.

    Args:
        arguments: of the command line.

    Returns:
        The exit status.
    """
    options = _parser().parse_args(arguments)
    known = known_datasets()
    folders = [name for name in options.names if name not in known and Path(name).is_dir()]
    names = [name for name in options.names if name not in folders]
    try:
        files = _files_of(names, known) if names or not folders else []
        status = max([_inspected_folder(Path(folder), options) for folder in folders], default=0)
        findings = [_examined(file, options) for file in files]
    except UserError as error:
        for line in error.problems:
            print(f"error: {line}", file=sys.stderr)
        return 2
    if findings:
        _print(findings)
    wrong = [f for f in findings if f.problems or (options.strict and f.differences)]
    return max(status, int(bool(wrong)))


def known_datasets() -> dict[str, Path]:
    """The files of ``conf/dataset`` that say which numbers are expected, by their names."""
    files = sorted((CONF / "dataset").glob("*.yaml"))
    return {file.stem: file for file in files if "facts" in OmegaConf.load(file)}


def node_of(file: Path, data: Path | str) -> dict[str, Any]:
    """A dataset's node out of its file.

    Args:
        file: a YAML file as in ``conf/dataset``.
        data: the folder of all data.

    Raises:
        UserError: If its values do not fit.
    """
    whole = OmegaConf.create({"paths": {"data": str(data)}, "dataset": OmegaConf.load(file)})
    plain = OmegaConf.to_container(whole, resolve=True)
    assert isinstance(plain, dict)
    node: Any = plain["dataset"]
    if not isinstance(node, dict):
        raise problem(str(file), "must hold the fields of a dataset, as conf/dataset does", node)
    problems = Problems()
    for part in ("source", "facts"):
        check_node(node.get(part), f"dataset.{part}", problems)
    problems.raise_if_any()
    return node


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    known = ", ".join(known_datasets())
    parser.add_argument(
        "names", nargs="*", metavar="dataset", help=f"a folder, a YAML file, or: {known}"
    )
    default = os.environ.get("SMM_DATA", "data")
    parser.add_argument("--data", type=Path, default=Path(default), help="the folder of all data")
    parser.add_argument("--download", action="store_true", help="fetch what torchvision can fetch")
    parser.add_argument("--decode", action="store_true", help="decode every image, list the broken")
    parser.add_argument("--strict", action="store_true", help="numbers must be those of Table 6")
    parser.add_argument("--groups", help="of a folder: as dataset.source.groups")
    parser.add_argument("--videos", type=Path, help="ucf101: extract middle frames from here")
    return parser


def _inspected_folder(folder: Path, options: argparse.Namespace) -> int:
    from smm_lightning.dataset import ImageFolder
    from smm_lightning.dataset.inspection import inspect
    from smm_lightning.device import usable_cpus

    report = inspect(ImageFolder(str(folder), groups=options.groups), usable_cpus())
    width = max((len(name) for _, name, _ in report.rows), default=0)
    for split, name, count in report.rows:
        print(f"{split:6} {name:{width}} {count:>7,}")
    for line in report.facts:
        print(line)
    for split, reasons in report.left_out.items():
        for reason, count in reasons.items():
            print(f"left out      {split}: {count} {reason}")
    for line in report.notes:
        print(f"note          {line}")
    for line in report.problems:
        print(f"wrong         {line}")
    print("A run can use it." if not report.problems else "A run would stop, or be misled.")
    return int(bool(report.problems))


def _files_of(names: list[str], known: dict[str, Path]) -> list[Path]:
    yamls = [name for name in names if name.endswith((".yaml", ".yml")) and Path(name).is_file()]
    for name in names:
        if name not in known and name not in yamls:
            raise problem("dataset", "unknown", name, did_you_mean(name, known))
    return [known.get(name, Path(name)) for name in names] or list(known.values())


def _examined(file: Path, options: argparse.Namespace) -> Finding:
    node = node_of(file, options.data)
    finding = Finding(str(node.get("name", file.stem)), node["facts"])
    source = instantiate(node["source"], _convert_="all")
    problems = Problems()
    if options.download:
        with problems.caught():
            _download(source, options.data)
    if options.videos and source.name == "ucf101":
        with problems.caught():
            problems.lines += _extract(source, options.videos)
    with problems.caught():
        _count(finding, source, options)
    finding.problems = problems.lines + finding.problems
    return finding


def _count(finding: Finding, source: Any, options: argparse.Namespace) -> None:
    from smm_lightning.dataset.image_cache_builder import broken_images
    from smm_lightning.device import usable_cpus

    source.listings()  # finds files that are listed and not there
    splits = source.load()
    counts = {part: len(split) for part, split in splits.parts().items()}
    finding.counts = {**counts, "classes": len(splits.class_names)}
    for key in _EXPECTED:
        expected = finding.facts[key]
        if finding.counts[key] != expected:
            count = finding.counts[key]
            finding.differences.append(f"{finding.name}: {key} {count}, in Table 6 {expected}")
    if options.decode:
        for split in splits.parts().values():
            finding.problems += broken_images(split, usable_cpus())


def _download(source: Any, data: Path) -> None:
    if not hasattr(source, "download"):
        raise problem(source.name, "cannot be fetched from anywhere", hint="Leave out --download.")
    try:
        data.mkdir(parents=True, exist_ok=True)
        source.download()
    except (OSError, RuntimeError) as error:  # no network, a dead link, another checksum
        message = " ".join(str(error).split())
        raise problem(source.name, f"the download failed ({message})") from error


def _extract(source: Any, videos: Path) -> list[str]:
    from rich.console import Console
    from rich.progress import track

    from smm_lightning.dataset.middle_frames import extract_middle_frames

    images = source.root / source.folders[0]
    split_file = images.parent / source.split
    if not split_file.is_file():
        hint = f"Fetch it from {source.split_url}."
        raise problem("ucf101", "the split file is missing", str(split_file), hint)
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
