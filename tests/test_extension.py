"""The door: parts from outside the package, from at most two files each, through every command."""

import csv
import json
import textwrap

import pytest

from tests.dataset.test_dataset import write_images
from tests.programs import run_program, run_verb

FILES = {
    # A dataset: an image folder, with the numbers that `smm prepare` expects.
    "conf/dataset/shapes.yaml": """
        name: shapes
        source:
          _target_: smm_lightning.dataset.ImageFolder
          root: images
        facts:
          _target_: smm_lightning.dataset.Facts
          train: 24
          test: 12
          classes: 3
          citation: nobody
        batch_size: 8
        augmentation: paper
        native_size: 16
        """,
    # A shared mask.
    "conf/method/corner.yaml": """
        name: corner
        _target_: corner.CornerPrompt
        share: 0.5
        look: {label: Corner, colour: "#882255", marker: X}
        """,
    "corner.py": """
        import torch
        from torch import nn
        from smm_lightning.method import InputTransform

        class CornerPrompt(InputTransform):
            def __init__(self, image_size, mean, std, share: float):
                super().__init__(image_size, mean, std)
                self.pattern = nn.Parameter(torch.zeros(3, image_size, image_size))
                side = int(share * image_size)
                corner = torch.zeros(3, image_size, image_size)
                corner[:, :side, :side] = 1
                self.register_buffer("corner", corner, persistent=False)

            def forward(self, images):
                return self.normalize(images) + self.pattern * self.corner

            def mask(self, images):
                return self.corner.expand(len(images), -1, -1, -1)

            def parameter_groups(self):
                return {"pattern": [self.pattern]}
        """,
    # A mapping that is counted: each target class reads the mean of the sources seen in its images.
    "conf/mapping/mixture.yaml": """
        name: mixture
        _target_: mixture.Mixture
        """,
    "mixture.py": """
        import torch
        from smm_lightning.mapping import LabelMapping, add_pairs

        class Mixture(LabelMapping):
            def __init__(self, inputs, classes):
                super().__init__(refresh="epoch")
                self.register_buffer("weight", torch.zeros(inputs, classes))

            @property
            def fitted(self):
                return bool(self.weight.any())

            def forward(self, source):
                return source.float() @ self.weight

            def reset(self):
                self.statistics = torch.zeros_like(self.weight, dtype=torch.int64)

            def observe(self, source, targets):
                add_pairs(self.statistics, source.argmax(1), targets)

            def fit(self, statistics):
                self.weight.copy_(statistics / statistics.sum(0).clamp_min(1))

            def dense(self):
                return self.weight.clone()
        """,
    # A mapping that is trained, on features, with a learning rate of its own.
    "conf/mapping/layer.yaml": """
        # @package _global_
        mapping:
          name: layer
          _target_: layer.Layer
        optimizer:
          groups:
            mapping:
              _target_: smm_lightning.training.Group
              lr: 0.01
        """,
    "layer.py": """
        from torch import nn
        from smm_lightning.mapping import LabelMapping

        class Layer(LabelMapping):
            reads = "features"

            def __init__(self, inputs, classes):
                super().__init__()
                self.layer = nn.Linear(inputs, classes)

            def forward(self, source):
                return self.layer(source.float())
        """,
    # A figure.
    "bars.py": """
        from smm_lightning.figures.registry import Drawn, figure
        from smm_lightning.figures.style import new_figure

        @figure("bars", of="group", needs="accuracies", caption="Test accuracies as bars.")
        def bars(group):
            drawn = new_figure()
            values = [run.finished["test/acc_last"] for run in group.runs]
            drawn.subplots().bar(range(len(values)), values)
            return Drawn(drawn, {"accuracy": values})
        """,
}
MAPPINGS = ("mixture", "layer")
TRAIN = ("--config-dir", "conf", "dataset=shapes", "method=corner", "backbone=tiny", "epochs=2")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with these files, and a run of each mapping."""
    folder = tmp_path_factory.mktemp("extension")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text).lstrip())
    for split, count in (("train", 8), ("test", 4)):
        write_images(folder / "images", split, ["circle", "square", "star"], count)
    for mapping in MAPPINGS:
        options = (f"mapping={mapping}", "trainer=cpu")
        done = run_program(*TRAIN, *options, cwd=folder, PYTHONPATH=str(folder))
        assert done.returncode == 0, done.stderr
    return folder


def the_run(place, mapping):
    (run,) = (place / "runs").glob(f"shapes-corner-tiny-{mapping}-*")
    return run


def test_each_part_is_two_files_at_most():
    for kind, files in {
        "dataset": ["conf/dataset/shapes.yaml"],
        "shared mask": ["conf/method/corner.yaml", "corner.py"],
        "counted mapping": ["conf/mapping/mixture.yaml", "mixture.py"],
        "trained mapping": ["conf/mapping/layer.yaml", "layer.py"],
        "figure": ["bars.py"],
    }.items():
        assert len(files) <= 2, kind
        assert set(files) <= FILES.keys()


def test_what_is_expected_of_the_dataset_is_there(place):
    done = run_verb("prepare", "conf/dataset/shapes.yaml", "--strict", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "complete" in done.stdout


def test_the_trained_parts_are_trained_and_the_counted_ones_counted(place):
    mixture, layer = (
        json.loads((the_run(place, mapping) / "result.json").read_text()) for mapping in MAPPINGS
    )
    assert "params/mapping" not in mixture
    assert layer["params/mapping"] == 32 * 3 + 3
    assert [len(row["sources"]) > 0 for row in mixture["mapping"]] == [True] * 3
    assert mixture["history"][0]["mapping/changed"] > 0


def test_the_report_has_a_row_and_a_column_for_them(place):
    done = run_verb("report", "runs", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "corner" in done.stdout
    assert "mixture" in done.stdout
    assert "shapes" in done.stdout


def test_figures_are_drawn_of_them_and_by_them(place):
    only = "training,curves,pictures,mapping,bars:bars"
    path = {"PYTHONPATH": str(place)}
    refused = run_verb("figures", "runs", "--only", "pictures", cwd=place, **path)
    assert refused.returncode == 2
    assert "error: method: the file names a class outside this package" in refused.stderr
    trust = [word for module in ("corner", *MAPPINGS) for word in ("--trust", module)]
    done = run_verb("figures", "runs", "--only", only, *trust, cwd=place, **path)
    assert done.returncode == 0, done.stderr
    names = {line.rpartition("/")[2] for line in done.stdout.splitlines()}
    wanted = {"curves.png", "pictures.png", "mapping.png"}
    wanted |= {f"{figure}-shapes-{m}.png" for figure in ("training", "bars") for m in MAPPINGS}
    assert names == wanted
    table = next(place.rglob("training-shapes-mixture.csv"))
    (row,) = csv.DictReader(table.read_text().splitlines()[1:])
    assert row["method"] == "corner"


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_they_predict_and_export_for_who_trusts_them(place, mapping):
    run, image = the_run(place, mapping), next((place / "images/test").rglob("*.png"))
    path = {"PYTHONPATH": str(place)}
    prompt = place / f"{mapping}.safetensors"
    done = run_verb("export", run, "--output", prompt, cwd=place)
    assert done.returncode == 0, done.stderr
    refused = run_verb("predict", prompt, image, cwd=place, **path)
    assert refused.returncode == 2
    what = "method: the file names a class outside this package (got 'corner.CornerPrompt')"
    assert f"error: {what}. If you trust its author: --trust corner" in refused.stderr
    trust = ("--trust", "corner", "--trust", mapping)
    lost = run_verb("predict", prompt, image, *trust, cwd=place)
    assert "its module cannot be imported" in lost.stderr
    answers = []
    for model in (run, prompt):
        done = run_verb("predict", model, image, *trust, "--format", "json", cwd=place, **path)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    assert answers[0] == answers[1]
    whole = ("export", run, "--format", "torch", "--output", f"{mapping}.pt2", *trust)
    done = run_verb(*whole, cwd=place, **path)
    assert done.returncode == 0, done.stderr
    done = run_verb("predict", f"{mapping}.pt2", image, "--format", "json", cwd=place)
    (exported,), (own,) = json.loads(done.stdout), answers[0]
    assert exported["classes"][0]["class"] == own["classes"][0]["class"]
    expected = own["classes"][0]["confidence"]
    assert exported["classes"][0]["confidence"] == pytest.approx(expected, abs=1e-5)
