"""Imports point one way: the concepts know nothing of each other, the shell knows them all."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "smm_lightning"
CONCEPTS = {"dataset", "method", "backbone", "mapping"}
BASICS = {"device", "errors", "files", "ranges"}
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "host_memory": set(),
    "ranges": set(),
    "result": {"errors", "files"},
    "run": {"errors", "files", "ranges", "result", "run_folder", "sweep"},
    "run_folder": BASICS | {"result"},
    "signals": set(),
    "sweep": {"errors", "run_folder", "signals"},
    "grid": {"errors", "run", "run_folder"},
    "status": {"grid", "run", "run_folder"},
    "report": BASICS | {"grid", "result", "run"},
    "checkpoint": {"errors"},
    "device": set(),
    **dict.fromkeys(CONCEPTS, BASICS),
    "prepare": {"dataset", "errors", "run"},
    "benchmark": CONCEPTS
    | {"classifier", "device", "host_memory", "predict", "prompt", "training"},
    "callbacks": BASICS | {"loop_batches", "method", "signals", "views"},
    "views": {"method"},
    "classifier": {"backbone", "errors", "loop_batches", "mapping", "method"},
    "loop_batches": {"errors"},
    "prompt": BASICS | CONCEPTS - {"dataset"} | {"checkpoint", "classifier", "run"},
    "export": {"classifier", "errors", "files", "prompt"},
    "predict": BASICS | {"dataset", "export", "host_memory", "prompt", "device"},
    "dashboard": {"errors"},
    "figures": BASICS
    | {"dataset", "run"}
    | {"assembly", "checkpoint", "classifier", "host_memory", "mapping", "report", "training"}
    | {"result", "views"},
    "training": BASICS
    | {"checkpoint", "classifier", "dataset", "loop_batches", "mapping", "method", "run"},
    "same_images": {"assembly", "errors", "run", "run_folder"},
    "assembly": CONCEPTS | {"checkpoint", "classifier", "device", "errors", "run", "training"},
    "train": {"assembly", "callbacks", "checkpoint", "dataset", "errors", "host_memory", "training"}
    | {"result", "run", "run_folder", "same_images", "signals", "sweep"},
    "__main__": {"errors", "run"},
    "__init__": {"classifier"},
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_imports_point_one_way():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for name in imported(path):
            if name.startswith("smm_lightning."):
                target = name.split(".")[1]
                if target != part and target not in ALLOWED[part]:
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
