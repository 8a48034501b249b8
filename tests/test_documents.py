"""What the documents say runs, and says what they show."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image

from tests.dataset.test_dataset import write_images
from tests.programs import ROOT, run_file, run_program, run_verb

SPLITS, LABELS = ("train", "test"), ("bright", "dark")
README = (ROOT / "README.md").read_text()
# Of a training of the README, beside what it says itself: seconds instead of minutes.
SMALL = {
    "backbone": "tiny",
    "trainer": "cpu",
    "dataset.train_images": "40",
    "dataset.test_images": "30",
    "dataset.batch_size": "10",
}


def recipes():
    """Commands of the README's recipes, each with the lines that it shows below."""
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL):
        for part in block.split("$ ")[1:]:
            command, *shown = part.splitlines()
            yield command, shown


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that the recipes begin in."""
    folder = tmp_path_factory.mktemp("recipes")
    generator = np.random.default_rng(0)
    for name in (f"{split}/{label}/{n}" for split in SPLITS for label in LABELS for n in range(12)):
        file = folder / f"my_images/{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        least = 128 * name.count("bright")
        Image.fromarray(generator.integers(least, least + 128, (30, 40, 3), "uint8")).save(file)
    shutil.copy(folder / "my_images/test/dark/0.png", folder / "photo.jpg")
    shutil.copy(ROOT / "docs/examples/tint.py", folder)
    return folder


def run(command, folder):
    """A command of the README, in a small variant where it trains."""
    program, *words = shlex.split(command)
    environment = {"cwd": folder, "PYTHONPATH": str(folder), "WANDB_MODE": "offline"}
    if program == "smm":
        return run_verb(*words, **environment)
    assert (program, words.pop(0)) == ("python", "train.py")
    if "backbone=timm" in words:  # there is no network here to fetch weights over
        words = [w.replace("resnet34", "test_resnet.r160_in1k") for w in words]
        words += ["backbone.pretrained=false", "paths.root=random"]
    given = {word.split("=")[0] for word in words}
    of_folder = {"dataset.train_images", "dataset.test_images"} if "dataset" in given else set()
    small = [f"{k}={v}" for k, v in SMALL.items() if k not in given | of_folder]
    return run_program(*words, *small, **environment)


def pattern_of(line):
    """What is shown, with any number for a number, any class and any width."""
    words = [re.escape(word) for word in line.split()]
    return r"\s+".join(
        re.sub(r"\d[\d,]*(\\\.\d+)?", r"\\d[\\d,]*(\\.\\d+)?", word) for word in words
    )


def test_the_recipes_of_the_readme_run_and_show_what_it_shows(place):
    """In their order, in one folder, as somebody would type them."""
    done_before = 0
    for command, shown in recipes():
        done = run(command, place)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        for line in shown:
            assert re.search(pattern_of(line), done.stdout), f"{command}\n{line}\n{done.stdout}"
        done_before += 1
    assert done_before >= 17


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200
    assert README.count("![") == 1


def test_the_python_of_the_readme_runs(tmp_path):
    for number in range(2):
        write_images(tmp_path / "my_images", "train", ("cat", "dog"), count=16 + number)
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "lines.py").write_text(block)
    done = run_file(tmp_path / "lines.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    saved = tmp_path / "my_classifier/model.safetensors"
    assert 200_000 < saved.stat().st_size < 350_000


@pytest.mark.slow
def test_the_notebook_runs_twice_in_one_kernel(tmp_path):
    """A cell that is run again leaves no state that breaks it."""
    shutil.copy(ROOT / "docs/examples/digits.py", tmp_path)
    notebook = nbformat.read(ROOT / "docs/examples/tour.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    text = "import os; os.environ['PYTHONPATH'] = ''; import sys; sys.path.insert(0, '.')"
    first = nbformat.v4.new_code_cell(text)
    notebook.cells = [first, *notebook.cells, nbformat.v4.new_code_cell(notebook.cells[-1].source)]
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()
    text = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])
    )
    epochs = re.findall(r"epoch \d: ([\d.]+) % right", text)
    before = re.search(r"before training: ([\d.]+) % right", text)[1]
    assert float(epochs[-1]) > float(before)
    assert "was finished before" in text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page_of_the_python_interface_names_everything_public(tmp_path):
    command = [sys.executable, str(ROOT / "docs/api.py"), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "Warn" not in done.stderr
    page = (tmp_path / "smm_lightning.html").read_text()
    import smm_lightning

    for name in smm_lightning.__all__:
        assert f'id="{name}"' in page, name
        assert getattr(smm_lightning, name) is not None
    assert ":class:<" not in page


def test_links_of_the_documents_lead_somewhere():
    for file in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        text = file.read_text()
        links = re.findall(r"\]\((?!http)([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)
        for link in links:
            assert (file.parent / link).exists(), f"{file.name}: {link}"


def test_versions_agree():
    import smm_lightning

    version = smm_lightning.__version__
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert Path(torch.__file__).exists()
