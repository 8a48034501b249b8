"""Using a trained classifier: as a module, as a file, through other runtimes, on image files."""

import copy
import csv
import io
import json
import re
import subprocess
import sys
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError, Thread, current_thread

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from smm_lightning import ReprogrammedClassifier
from smm_lightning import train as entry
from smm_lightning.classifier.prompt_file import (
    FORMAT,
    read_prompt,
    write_prompt,
)
from smm_lightning.dataset import Decoding
from smm_lightning.errors import UserError
from smm_lightning.inference import export
from smm_lightning.inference.model import Model, load_model
from smm_lightning.inference.options import device_of
from smm_lightning.inference.predict import files_of, predictions, rendered
from tests.hostile import answer_of
from tests.programs import run_verb
from tests.test_train import ROOT, SMALL

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["smm", "pad", "only_mask"])
def trained(request, tmp_path_factory):
    """The folder of a finished run, and its module as training left it."""
    from hydra import compose, initialize_config_dir

    from tests.assembled import assemble

    root = tmp_path_factory.mktemp(request.param)
    options = [*SMALL, f"method={request.param}", "epochs=2", "dataset.native_size=16"]
    options += [f"paths.root={root}/runs", f"paths.image_cache={root}/image_cache"]
    with initialize_config_dir(str(entry.CONF), version_base="1.3"):
        cfg = compose("train", options)
    entry.train(cfg)
    module = assemble(cfg).module
    run = Path(cfg.paths.run)
    weights = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    module.load_state_dict(weights)
    return run, module.eval()


def images_for(module, count=20):
    size = module.classifier.input_transform.input_size
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_a_checkpoint_alone_gives_the_classifier_back(trained, tmp_path):
    run, module = trained
    moved = tmp_path / "anywhere.ckpt"
    moved.write_bytes((run / "last.ckpt").read_bytes())
    classifier = ReprogrammedClassifier.from_prompt(read_prompt(moved))
    images = images_for(module)
    assert torch.equal(classifier(images), module(images))
    assert torch.equal(ReprogrammedClassifier.from_prompt(read_prompt(run))(images), module(images))


def test_a_prompt_file_is_small_and_gives_the_same_bits(trained, tmp_path):
    run, module = trained
    prompt = read_prompt(run)
    write_prompt(prompt, tmp_path / "whole.safetensors")
    write_prompt(prompt, tmp_path / "half.safetensors", half=True)
    images = images_for(module)
    whole, half = (
        ReprogrammedClassifier.from_pretrained(tmp_path / f"{name}.safetensors")(images)
        for name in ("whole", "half")
    )
    assert torch.equal(whole, module(images))
    torch.testing.assert_close(half, whole, rtol=0.05, atol=0.05)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
    learned = sum(p.numel() for p in module.classifier.input_transform.parameters())
    assert sizes[0] < 4 * learned + 20_000
    assert sizes[1] < 0.7 * sizes[0]


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_whole_models_agree_with_the_checkpoint(trained, tmp_path, form):
    run, module = trained
    path = tmp_path / export.NAMES[form]
    made = ReprogrammedClassifier.from_pretrained(run)
    made.nodes = {**made.nodes, "decoding": {"exif": True, "background": None}}
    made.export(path)
    model = load_model(path, CPU)
    assert (model.input_size, model.class_names) == (
        module.classifier.input_transform.input_size,
        list("0123456789"),
    )
    assert model.decoding == Decoding(exif=True)
    for count in (1, 7):  # any batch size
        images = images_for(module, count)
        expected = module(images).softmax(1)
        torch.testing.assert_close(model.confidences(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trained", ["smm"], indirect=True)
@pytest.mark.parametrize("form", ["prompt", "torch", "onnx"])
def test_a_disk_that_is_full_while_exporting_costs_no_good_file(trained, tmp_path, form):
    run, _ = trained
    path = tmp_path / export.NAMES[form]
    path.write_bytes(b"good")
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        "from smm_lightning.__main__ import main; main()"
    )
    arguments = ["export", str(run), "--format", form, "--output", str(path)]
    command = [sys.executable, "-B", "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(
        f"error: --output: cannot be written (File too large) (got '{path}')."
    )
    assert "Traceback" not in done.stderr
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("trained", ["smm"], indirect=True)
def test_prompts_load_without_lightning_and_hydra(trained, tmp_path):
    run, _ = trained
    write_prompt(read_prompt(run), tmp_path / "p.safetensors")
    code = (
        "import sys; sys.modules |= dict.fromkeys(['lightning', 'hydra', 'omegaconf', 'wandb']); "
        "from smm_lightning import ReprogrammedClassifier; "
        "print(len(ReprogrammedClassifier.from_pretrained(sys.argv[1]).class_names))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "p.safetensors")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "10"


def test_hostile_and_damaged_prompts_are_refused(trained, tmp_path, monkeypatch):
    run, _ = trained
    prompt = read_prompt(run)
    path = tmp_path / "p.safetensors"
    write_prompt(prompt, path)
    good = path.read_bytes()
    for content in (b"", good[:100], b"<html>" + good):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"is damaged"):
            read_prompt(path)
    save_file({"x": torch.zeros(1)}, path, {"format": "another"})
    with pytest.raises(
        UserError, match=r"is no prompt of this version .got 'another'.. `smm export"
    ):
        read_prompt(path)
    save_file({"x": torch.zeros(1)}, path, {"format": FORMAT})
    with pytest.raises(UserError, match=r"is damaged"):
        read_prompt(path)
    with pytest.raises(UserError, match=r"no such file"):
        read_prompt(tmp_path / "none.safetensors")
    for target in (
        "os.system",
        "smm_lightning.method.sample_specific.nn",
        "smm_lightning.method.INTERPOLATIONS",
    ):
        parts = {**prompt.parts, "method": {"_target_": target}}
        hostile = replace(prompt, parts=parts)
        with pytest.raises(UserError, match=r"method: the file names (a class outside|no Input)"):
            ReprogrammedClassifier.from_prompt(hostile)
    witness = tmp_path / "witness.py"
    witness.write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for inner in ({"_target_": "witness.x"}, [{"_target_": "witness.x"}]):
        parts = {**prompt.parts, "method": {**prompt.parts["method"], "layers": inner}}
        hostile = replace(prompt, parts=parts)
        with pytest.raises(UserError, match=r"method: the file names a class within another"):
            ReprogrammedClassifier.from_prompt(hostile)
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    checkpoint["identity"]["schema"] = 6
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with pytest.raises(UserError, match=r"is a checkpoint of another version"):
        read_prompt(tmp_path / "old.ckpt")
    fewer = {**prompt.weights}
    fewer.pop("label_mapping.index")
    with pytest.raises(UserError, match=r"prompt: its weights do not fit its parts"):
        ReprogrammedClassifier.from_prompt(replace(prompt, weights=fewer))
    other = {**prompt.parts, "backbone": {**prompt.parts["backbone"], "seed": 9}}
    of_seed_9 = replace(prompt, parts=other)
    with pytest.raises(UserError, match=r"backbone: these frozen weights are not those"):
        ReprogrammedClassifier.from_prompt(of_seed_9)


def write_image(path, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def test_predictions_of_files(trained, tmp_path):
    run, module = trained
    for number, mode in enumerate(("RGB", "L", "P", "CMYK")):
        write_image(tmp_path / f"images/{number}.{'jpg' if mode == 'CMYK' else 'png'}", mode=mode)
    (tmp_path / "images/broken.png").write_bytes(b"no image")
    (tmp_path / "images/notes.txt").write_text("left alone")
    paths = files_of([tmp_path / "images"]).images
    assert len(paths) == 5
    model = load_model(run, CPU)
    rows = list(predictions(model, paths, batch_size=2, top=3))
    assert [row["file"] for row in rows] == [str(path) for path in paths]
    assert [i for i, row in enumerate(rows) if "error" in row] == [4]
    first = rows[0]["classes"]
    assert len(first) == 3
    assert first[0]["confidence"] >= first[1]["confidence"]
    size = module.classifier.input_transform.input_size
    with Image.open(paths[0]) as image:
        pixels = np.array(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    expected = module(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255).softmax(1)
    assert first[0]["confidence"] == pytest.approx(expected.max().item(), abs=1e-5)
    assert first[0]["class"] == str(expected.argmax().item())
    for workers in (1, 3):
        again = list(predictions(model, paths, batch_size=2, workers=workers, top=3))
        for one, other in zip(again, rows, strict=True):
            assert (one["file"], one.get("error")) == (other["file"], other.get("error"))
            for found, expected in zip(
                one.get("classes", []), other.get("classes", []), strict=True
            ):
                assert found["class"] == expected["class"]
                assert found["confidence"] == pytest.approx(expected["confidence"], abs=1e-6)


@pytest.mark.parametrize("trained", ["smm"], indirect=True)
def test_predictions_keep_the_order_of_their_input(trained, tmp_path, monkeypatch, capsys):
    run, _ = trained
    for name in ("b", "a", "c"):
        write_image(tmp_path / f"deep/{name}.png")
    monkeypatch.chdir(tmp_path)

    def answers(*places, lines=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
        status = answer_of("predict", run, *places, "--format", "json")
        rows = json.loads(capsys.readouterr().out)
        return status, [(Path(row["file"]).name, "classes" in row) for row in rows]

    everything = [("a.png", True), ("b.png", True), ("c.png", True)]
    assert answers("deep") == (0, everything)
    assert answers("**/*.png") == (0, everything)
    assert answers("deep/[bc].png", "deep/a.png") == (0, [everything[i] for i in (1, 2, 0)])
    write_image(tmp_path / "deep/[bc].png")  # a file of that name goes first
    assert answers("deep/[bc].png") == (0, [("[bc].png", True)])
    assert answers("deep/b.png", "deep/a.png", "deep/b.png") == (0, everything[1::-1])
    lines = "deep/c.png\n\ndeep/none.png\ndeep/a.png\ndeep/c.png\n"
    expected = [("c.png", True), ("none.png", False), ("a.png", True), ("c.png", True)]
    assert answers("-", lines=lines) == (1, expected)
    assert answer_of("predict", run, "deep/*.tiff") == 2
    assert "no such file or folder (got 'deep/*.tiff')" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert answer_of("predict", run, "-") == 2
    assert "no image files there (got '-')" in capsys.readouterr().err


def test_predictions_keep_order_and_do_not_read_all_files_ahead(tmp_path):
    """Batches end in another order, a reader may stop early, and threads are as before."""
    write_image(tmp_path / "a.png", size=(4, 4))
    seen, expected = [], in_a_thread(torch.get_num_threads)

    def logits(images):
        seen.append(len(images))
        time.sleep(0.02 * (len(seen) % 3))
        return torch.zeros(len(images), 2)

    model = Model(logits, 4, ["a", "b"], Decoding())
    paths = [tmp_path / name for number in range(40) for name in ("a.png", f"{number}.png")]
    rows = predictions(model, paths, batch_size=2, workers=3)
    begun = [next(rows)["file"] for _ in range(6)]
    assert begun == [str(path) for path in paths[:6]]
    assert len(seen) < 20
    assert in_a_thread(torch.get_num_threads) == expected  # while others are at work, too
    rows.close()
    assert len(list(predictions(model, paths, batch_size=2, workers=3))) == 80
    assert list(predictions(model, [])) == []


def test_an_error_in_a_thread_is_that_of_the_reader(tmp_path):
    def logits(images):
        raise RuntimeError("no memory")

    write_image(tmp_path / "a.png", size=(4, 4))
    model = Model(logits, 4, ["a", "b"], Decoding())
    with pytest.raises(RuntimeError, match="no memory"):
        list(predictions(model, [tmp_path / "a.png"] * 9, batch_size=2, workers=3))


def test_a_thread_that_wakes_late_is_not_waited_for_without_end(tmp_path, monkeypatch):
    """Two do so after an error of the third, and one of them sees the barrier broken."""

    class Late(Barrier):
        def wait(self, timeout=None):
            place, name = super().wait(timeout), current_thread().name
            time.sleep({"1": 0.1, "2": 0.3}.get(name.rpartition("_")[2], 0))
            if name.endswith("_1"):
                assert self.broken
                raise BrokenBarrierError
            return place

    def logits(images):
        raise RuntimeError("no memory")

    def predict():
        with suppress(RuntimeError):
            list(predictions(model, [tmp_path / "a.png"] * 9, batch_size=2, workers=3))

    write_image(tmp_path / "a.png", size=(4, 4))
    model = Model(logits, 4, ["a", "b"], Decoding())
    monkeypatch.setattr("smm_lightning.inference.predict.Barrier", Late)
    reader = Thread(target=predict, daemon=True)
    reader.start()
    reader.join(20)
    assert not reader.is_alive()


def in_a_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_batches_go_to_a_gpu_one_at_a_time(tmp_path):
    write_image(tmp_path / "a.png", size=(4, 4))

    def answers(device, patience):
        both = Barrier(2)

        def logits(images):
            both.wait(timeout=patience)  # for another batch to come
            return torch.zeros(len(images), 2)

        model = Model(logits, 4, ["a", "b"], Decoding(), torch.device(device))
        return list(predictions(model, [tmp_path / "a.png"] * 4, batch_size=1, workers=2))

    assert len(answers("cpu", patience=60)) == 4
    with pytest.raises(BrokenBarrierError):
        answers("meta", patience=0.5)  # s, in which the second batch waits for the first


@pytest.mark.parametrize("trained", ["smm"], indirect=True)
def test_predictions_in_16_bits(trained, tmp_path):
    run, module = trained
    images = images_for(module)
    exact, rounded = (
        load_model(run, CPU, precision=precision).confidences(images)
        for precision in ("32-true", "bf16-mixed")
    )
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.05)
    with pytest.raises(UserError, match=r"--precision: an export has its own"):
        load_model(tmp_path / "model.onnx", CPU, precision="auto")


@pytest.mark.parametrize("trained", ["smm"], indirect=True)
def test_the_benchmark_of_predictions(trained, tmp_path, monkeypatch, capsys):
    from smm_lightning.benchmark import prediction

    for number in range(3):
        write_image(tmp_path / f"{number}.png")
    arguments = [str(trained[0]), str(tmp_path), "--batch", "2", "--steps", "1"]
    monkeypatch.setattr(sys, "argv", ["prediction", *arguments, "--repetitions", "2"])
    prediction.main()
    text = capsys.readouterr().out
    assert "3 files" in text
    rows = dict(re.findall(r"^\| ([a-z ]+) \| ([\d.]+) \(", text, flags=re.M))
    assert list(rows) == ["frozen network alone", "with prompt and mapping", "from files"]
    assert all(float(value) > 0 for value in rows.values())


def test_rows_as_table_csv_and_json():
    rows = [
        {"file": "a,b.png", "classes": [{"class": "cat", "confidence": 0.75}]},
        {"file": "c.png", "error": "c.png: is no readable image."},
    ]
    assert rendered(rows, "table") == "a,b.png  cat   75.0 %\n"
    lines = list(csv.DictReader(io.StringIO(rendered(rows, "csv"))))
    assert lines == [{"file": "a,b.png", "rank": "1", "class": "cat", "confidence": "0.75"}]
    assert json.loads(rendered(rows, "json")) == rows
    assert rendered([], "table") == ""


@pytest.mark.parametrize("trained", ["smm"], indirect=True)
def test_the_commands(trained, tmp_path):
    run, _ = trained
    made = run_verb("export", run, "--output", tmp_path / "p.safetensors", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "p.safetensors" in made.stdout
    write_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    arguments = (tmp_path / "p.safetensors", "a.png", "b.png", "--format", "json")
    done = run_verb("predict", *arguments, "--output", "rows.json", cwd=tmp_path)
    assert done.returncode == 1
    assert "left out: b.png: is no readable image" in done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [set(row) for row in rows] == [{"file", "classes"}, {"file", "error"}]
    bad = run_verb("predict", run, "nowhere", cwd=tmp_path)
    assert bad.returncode == 2
    assert bad.stderr == "error: images: no such file or folder (got 'nowhere').\n"


def test_devices_are_checked():
    assert device_of("cpu") == CPU
    with pytest.raises(UserError, match=r"device: cannot be used"):
        device_of("toaster")


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 20),
    )


def test_any_classifier_can_be_wrapped_and_trained_in_a_loop_of_ones_own():
    """The README's lines, on two colours."""
    from torch.nn.functional import cross_entropy

    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = ReprogrammedClassifier.wrap(network, ["dark", "bright"], image_size=32)
    targets = torch.arange(40) % 2
    images = torch.rand(40, 3, 32, 32) * 0.4 + 0.5 * targets.view(-1, 1, 1, 1)
    loader = [(images[:20], targets[:20]), (images[20:], targets[20:])]
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        model.refit(loader)
        for batch, labels in loader:
            loss = cross_entropy(model(batch), labels)
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    confidences = model.probabilities(images)
    torch.testing.assert_close(confidences.sum(1), torch.ones(40))
    assert model.training
    assert all(weights.requires_grad for weights in network.parameters())
    assert network.training
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_network_may_be_used_in_place_where_memory_is_short():
    network = small_network()
    model = ReprogrammedClassifier.wrap(network, ["dark", "bright"], image_size=32, in_place=True)
    assert model.backbone.body is network
    assert not any(weights.requires_grad for weights in network.parameters())


def test_a_wrapped_classifier_is_copied_saved_and_loaded(tmp_path):
    """By ``copy.deepcopy``, ``torch.save`` of the whole and of the state, on its own."""
    model = ReprogrammedClassifier.wrap(small_network(), ["dark", "bright"], image_size=32).eval()
    images = torch.rand(4, 3, 32, 32)
    model.refit([(images, torch.tensor([0, 1, 0, 1]))])
    torch.nn.init.normal_(model.input_transform.pattern)
    expected = model(images)
    copied = copy.deepcopy(model)
    torch.save(model, tmp_path / "whole.pt")
    loaded = torch.load(tmp_path / "whole.pt", weights_only=False)
    other = ReprogrammedClassifier.wrap(small_network(), ["dark", "bright"], image_size=32).eval()
    other.load_state_dict(model.state_dict())
    for one in (copied, loaded, other):
        assert torch.equal(one(images), expected)
    assert copied.backbone.body is not model.backbone.body
    assert not [name for name in model.state_dict() if "backbone" in name]


class Answering(nn.Module):
    """A small network whose answer has another form, or whose weights another precision."""

    def __init__(self, form):
        super().__init__()
        self.network, self.form = small_network(), form

    def forward(self, images):
        return self.form(self.network(images))


class Scripted(nn.Linear):
    """Refuses as a ScriptModule does."""

    def __init__(self):
        super().__init__(3, 2)

    def requires_grad_(self, requires_grad=True):
        raise RuntimeError("requires_grad_ is not supported on ScriptModules")


Answer = namedtuple("Answer", "loss logits")
FORMS = {
    "tensor": lambda logits: logits,
    "tuple": lambda logits: (logits, None),
    "list": lambda logits: [logits],
    "dictionary": lambda logits: {"logits": logits, "loss": None},
    "object": lambda logits: Answer(None, logits),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_networks_of_every_form_and_precision_are_wrapped(form, dtype):
    expected = ReprogrammedClassifier.wrap(small_network(), ["a", "b"], image_size=32)
    network = Answering(FORMS[form]).to(dtype)
    model = ReprogrammedClassifier.wrap(network, ["a", "b"], image_size=32)
    images = torch.rand(4, 3, 32, 32)
    for one in (model, expected):
        one.refit([(images, torch.tensor([0, 1, 0, 1]))])
        one.label_mapping.fit(torch.arange(40).view(20, 2))
    assert model(images).dtype == torch.float32
    tolerance = {"rtol": 0, "atol": 1e-6 if dtype == torch.float32 else 0.02}
    torch.testing.assert_close(model(images), expected(images), **tolerance)
    model(images).sum().backward()
    assert model.input_transform.pattern.grad.dtype == torch.float32
    assert len(model.backbone.sha256) == 64


def test_a_network_without_weights_is_wrapped():
    class Colours(nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    model = ReprogrammedClassifier.wrap(Colours(), ["a", "b"], image_size=32)
    assert model.refit([(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))]) == 2
    assert model(torch.rand(5, 3, 32, 32)).shape == (5, 2)


@pytest.mark.parametrize(
    ("network", "names", "message"),
    [
        (small_network, "cat", r"class_names: must be a list of names, in the order .*got 'cat'."),
        (small_network, [], r"class_names: must be texts, at least one"),
        (small_network, [1, 2], r"class_names: must be texts"),
        (small_network, ["a", "a"], r"class_names: must all be different .got 'a'."),
        (lambda: nn.Flatten(0), ["a"], r"network: must return logits .*got .6144,"),
        (lambda: nn.Conv2d(3, 5, 32), ["a"], r"network: must return logits .*got .2, 5, 1, 1."),
        (lambda: Answering(lambda _: {}), ["a"], r"network: must return logits .*got 'dict'."),
        (lambda: Answering(lambda _: ()), ["a"], r"network: must return logits .*got 'tuple'."),
        (lambda: nn.Linear(7, 2), ["a"], r"network: cannot classify images of shape .2, 3, 32, 32"),
        (lambda: print, ["a"], r"network: must be a torch.nn.Module"),
        (Scripted, ["a"], r"network: cannot be frozen .requires_grad_ is not supported"),
        (
            small_network,
            {"a", "b"},
            r"class_names: must be a list .* in the order of the class num",
        ),
        (lambda: Answering(lambda x: x.detach()), ["a"], r"network: passes no gradient .*detach"),
        (lambda: Answering(lambda x: x.argsort()), ["a"], r"network: must return finite floating"),
        (lambda: Answering(lambda x: x / 0), ["a"], r"network: must return finite floating-point"),
    ],
)
def test_what_cannot_be_wrapped_is_answered(network, names, message):
    with pytest.raises(UserError, match=message):
        ReprogrammedClassifier.wrap(network(), names, image_size=32)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"image_size": 0}, "image_size"),
        ({"image_size": 32.0}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"image_size": (32, 32)}, "image_size"),
        ({"mean": 0.5}, "mean"),
        ({"mean": (0.5, 0.5)}, "mean"),
        ({"mean": (123.0, 116.0, 103.0)}, "mean"),
        ({"mean": (float("nan"),) * 3}, "mean"),
        ({"std": (0, 0, 0)}, "std"),
        ({"std": (58.0, 57.0, 57.0)}, "std"),
    ],
)
def test_numbers_that_a_network_was_not_trained_with_are_refused(arguments, field):
    with pytest.raises(UserError, match=rf"^{field}: must be"):
        ReprogrammedClassifier.wrap(small_network(), ["a"], **{"image_size": 32, **arguments})


IMAGES, TARGETS = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    "batch",
    [
        (IMAGES, TARGETS),
        [IMAGES.double(), TARGETS.int()],
        (IMAGES, [0, 1, 0, 1]),
        (IMAGES, TARGETS.numpy()),
        {"image": IMAGES, "target": TARGETS, "index": None},
        {"pixel_values": IMAGES, "labels": TARGETS},
    ],
)
def test_batches_of_every_form_are_counted(batch):
    model = ReprogrammedClassifier.wrap(small_network(), ["a", "b"], image_size=32)
    assert model.refit([batch]) == 2
    expected = ReprogrammedClassifier.wrap(small_network(), ["a", "b"], image_size=32)
    expected.refit(iter([(IMAGES, TARGETS)]))
    assert torch.equal(model.label_mapping.index, expected.label_mapping.index)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((IMAGES, TARGETS.float()), r"targets: must be class numbers .*float32.*targets.long"),
        ((IMAGES, torch.eye(2)[TARGETS]), r"targets: must be class numbers .*targets.argmax.1."),
        ((IMAGES, torch.eye(2)[TARGETS].long()), r"targets: must be class numbers .*argmax.1."),
        ((IMAGES, TARGETS[:, None]), r"targets: must be class numbers .*targets.squeeze.1."),
        ((IMAGES, TARGETS > 0), r"targets: must be class numbers .*bool"),
        ((IMAGES, ["a", "b", "a", "b"]), r"targets: must be class numbers"),
        ((IMAGES, None), r"targets: must be class numbers"),
        ((IMAGES, TARGETS.to(torch.complex64)), r"targets: must be class numbers"),
        ({1: IMAGES, "label": TARGETS}, r"batches: a dictionary without images"),
        ((IMAGES, TARGETS[:3]), r"targets: must be one for each of the 4 images .got 3."),
        ((IMAGES, TARGETS + 1), r"targets: must be from 0 to 1 .got 2."),
        ((IMAGES, TARGETS - 1), r"targets: must be from 0 to 1 .got -1."),
        ((IMAGES * 255, TARGETS), r"images: must lie in .0, 1. .got '.* to 25[45]"),
        ((IMAGES * 4 - 2, TARGETS), r"images: must lie in .0, 1. .*normalises them itself"),
        ((IMAGES * torch.nan, TARGETS), r"images: must lie in .0, 1. .got 'nan to nan'."),
        (
            ((IMAGES * 255).byte(), TARGETS),
            r"images: must be floating-point .*images.float.. / 255",
        ),
        (
            (IMAGES[:, :1], TARGETS),
            r"images: must have the shape .B, 3, 32, 32. .got .4, 1, 32, 32",
        ),
        ((IMAGES[..., :30], TARGETS), r"images: must have the shape"),
        ((IMAGES[0], TARGETS), r"images: must have the shape"),
        (([IMAGES], TARGETS), r"images: must be a tensor"),
        ({"picture": IMAGES, "label": TARGETS}, r"batches: a dictionary without images or targets"),
        (IMAGES, r"batches: must be pairs of images and targets .got 'Tensor'."),
        ((IMAGES, TARGETS, TARGETS), r"batches: must be pairs"),
    ],
)
def test_batches_that_would_train_something_else_are_refused(batch, message):
    model = ReprogrammedClassifier.wrap(small_network(), ["a", "b"], image_size=32).train()
    with pytest.raises(UserError, match=message):
        model.refit([batch])
    assert model.training
    assert model.input_transform.training


def test_a_loader_that_is_used_up_is_named_as_such():
    model = ReprogrammedClassifier.wrap(small_network(), ["a", "b"], image_size=32)
    with pytest.raises(UserError, match=r"batches: holds no batch\.$"):
        model.refit([])
    with pytest.raises(
        UserError, match=r"batches: must be a loader, or a list of batches .got 'NoneType'."
    ):
        model.refit(None)
    batches = iter([(IMAGES, TARGETS)])
    model.refit(batches)
    with pytest.raises(UserError, match=r"batches: holds no batch. An iterator is used up after"):
        model.refit(batches)


def test_wrong_use_is_answered():
    model = ReprogrammedClassifier.wrap(small_network(), ["a", "b"], image_size=32)
    with pytest.raises(RuntimeError, match=r"label mapping used before refit"):
        model(torch.rand(1, 3, 32, 32))
    with pytest.raises(UserError, match=r"targets: must be from 0 to 1 .got 2."):
        model.refit([(torch.rand(1, 3, 32, 32), torch.tensor([2]))])
    with pytest.raises(UserError, match=r"21 target classes cannot each have one of 20"):
        ReprogrammedClassifier.wrap(small_network(), [str(i) for i in range(21)], image_size=32)
