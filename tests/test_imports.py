"""Imports point one way: the concepts know nothing of each other, the shell knows them all."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "smm_lightning"
CONCEPTS = {"dataset", "method", "backbone", "mapping"}
# Floors of the house: a part imports from lower floors only, and from none beside it.
FLOORS = (
    {"errors", "ranges", "text"},
    {"device", "files"},
    CONCEPTS,
    {"run"},
    {"classifier"},
    {"inference", "training"},
    {"report"},
    {"benchmark", "figures", "train"},
    {"__main__"},
)
FLOOR = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_imports_point_downwards():
    parts = {path.stem for path in PACKAGE.iterdir() if path.name[0] not in "_."} - {"py"}
    assert parts | {"__main__"} == FLOOR.keys()
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if part == "__init__":  # which loads the classifier when it is asked for
            continue
        for name in imported(path):
            target = name.split(".")[1] if name.startswith("smm_lightning.") else part
            if target != part and FLOOR[target] >= FLOOR[part]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert wrong == []


def test_equations_are_free_of_lightning_and_hydra():
    for group in CONCEPTS:
        for path in (PACKAGE / group).rglob("*.py"):
            if path.name != "datamodule.py":
                found = {name.split(".")[0] for name in imported(path)}
                assert not found & {"lightning", "hydra", "omegaconf", "wandb"}, path


def test_there_is_no_drawer_for_everything():
    names = {path.stem for path in PACKAGE.rglob("*")}
    assert not names & {"utils", "common", "helpers", "misc"}


def test_the_command_line_loads_no_torch():
    code = (
        "import sys; from smm_lightning import train; "
        "print({'torch', 'lightning', 'wandb', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
