"""A classifier in files and on the hub: saved, shared, loaded, exported."""

import json
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import save_file
from torch import nn

from smm_lightning import ReprogrammedClassifier
from smm_lightning import train as entry
from smm_lightning.classifier import write_prompt
from smm_lightning.errors import UserError
from smm_lightning.inference.model import load_model
from smm_lightning.mapping import OneToOneMapping
from smm_lightning.method import InputTransform, PadPrompt
from tests.programs import run_file, run_verb
from tests.test_use import small_network

NAMES = ["dark", "bright"]
CONF = Path(entry.CONF)
EXAMPLES = Path(__file__).parent.parent / "docs/examples"
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 0, 1])


def fitted(network, **options):
    torch.manual_seed(0)
    model = ReprogrammedClassifier.wrap(network, NAMES, **{"image_size": 32, **options})
    size = model.input_size
    model.refit([(nn.functional.interpolate(IMAGES, size), TARGETS)])
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.1)
    return model.eval()


def choices(group):
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


PAIRS = [(method, "ilm") for method in choices("method")]
PAIRS += [("smm", mapping) for mapping in choices("mapping")]


@pytest.mark.parametrize(("method", "mapping"), PAIRS)
def test_every_method_and_mapping_is_wrapped_by_name_saved_and_loaded(tmp_path, method, mapping):
    network = small_network()
    model = fitted(network, method=method, mapping=mapping)
    model.save_pretrained(tmp_path)
    again = ReprogrammedClassifier.from_pretrained(tmp_path, backbone=network)
    images = torch.rand(3, 3, model.input_size, model.input_size)
    assert torch.equal(again(images), model(images))
    assert again.class_names == NAMES
    assert again.prompt.parts == model.prompt.parts


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", {"name": "tiny", "seed": 3}])
def test_a_network_of_conf_is_found_again_without_handing_it_over(tmp_path, backbone):
    model = fitted(backbone)
    model.save_pretrained(tmp_path)
    again = ReprogrammedClassifier.from_pretrained(tmp_path / "model.safetensors")
    assert again.backbone is not model.backbone
    assert torch.equal(again(IMAGES), model(IMAGES))


def test_fields_beside_a_name_and_classes_with_arguments():
    network = small_network()
    one = fitted(network, method={"name": "smm", "patch_size": 4, "width": 16}, recipe="paper")
    assert (one.input_transform.patch_size, one.label_mapping.refit_until) == (4, None)
    assert one.temperature == 1
    two = fitted(
        network,
        method=partial(PadPrompt, native_size=20),
        mapping=partial(OneToOneMapping, refresh="running"),
    )
    assert (two.input_size, two.label_mapping.refresh) == (20, "running")
    assert fitted(network, method="pad").input_size == 16  # half of the network's


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "smn"}, r"^method: no such choice \(got 'smn'\). Did you mean 'smm'"),
        ({"mapping": "olm"}, r"^mapping: no such choice \(got 'olm'\). Did you mean '.lm'"),
        ({"recipe": "cake"}, r"^recipe: no such choice .*Known are paper, steady"),
        ({"method": {"patch_size": 4}}, r"^method: names no choice beside its fields"),
        ({"method": {"name": "smm", "_target_": "a.B"}}, r"^method: takes fields of its class"),
        ({"method": {"name": "smm", 3: 4}}, r"^method: takes fields of its class .*got 3"),
        ({"method": {"name": "smm", "patch": 4}}, r"^method.patch: no such field .*patch_size"),
        ({"method": {"name": "smm", "patch_size": 3}}, r"^method.patch_size: must be a power"),
        ({"method": nn.Linear}, r"^method: must be a name, .*derived from InputTransform"),
        ({"mapping": PadPrompt}, r"^mapping: must be a name, .*derived from LabelMapping"),
        ({"method": lambda **_: None}, r"^method: must be a name, "),
        ({"method": partial(PadPrompt, native=3)}, r"^method.native: no such field"),
    ],
)
def test_what_is_no_method_or_mapping_is_answered(options, message):
    with pytest.raises(UserError, match=message):
        fitted(small_network(), **options)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("resnet5", r"^backbone: no such choice \(got 'resnet5'\). Did you mean 'resnet50'"),
        ({"name": "tiny", "sed": 1}, r"^backbone.sed: no such field"),
        ({"name": "timm", "model": "resnet9999"}, r"^backbone.model: timm has no such model"),
        ({"name": "tiny", "image_size": "224"}, r"^backbone.image_size: must be a valid integer"),
        ({}, r"^backbone: no such choice"),
    ],
)
def test_what_is_no_network_is_answered(network, message):
    with pytest.raises(UserError, match=message):
        ReprogrammedClassifier.wrap(network, NAMES)


def test_size_normalisation_and_class_names_of_timm_are_found():
    network = timm.create_model("test_resnet.r160_in1k", pretrained=False)
    model = ReprogrammedClassifier.wrap(network, NAMES)
    facts = network.pretrained_cfg
    assert model.backbone.image_size == facts["input_size"][-1]
    assert model.backbone.mean == tuple(facts["mean"])
    assert model.backbone.class_names[:2] == ["tench, Tinca tinca", "goldfish, Carassius auratus"]
    few = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=7)
    assert ReprogrammedClassifier.wrap(few, NAMES).backbone.class_names == list("0123456")


def test_class_names_of_transformers_are_found():
    network = small_network()
    network.config = type("Config", (), {"id2label": {i: f"thing {i}" for i in range(20)}})
    assert fitted(network).backbone.class_names[19] == "thing 19"
    network.config.id2label.pop(3)
    assert fitted(network).backbone.class_names[19] == "19"


def test_another_network_than_the_wrapped_one_is_refused(tmp_path):
    network = small_network()
    fitted(network).save_pretrained(tmp_path)
    load = partial(ReprogrammedClassifier.from_pretrained, tmp_path)
    with pytest.raises(UserError, match=r"^backbone: is a network of your own, which no file hol"):
        load()
    nn.init.normal_(network[-1].weight)
    with pytest.raises(UserError, match=r"^backbone: these frozen weights are not those"):
        load(backbone=network)
    with pytest.raises(UserError, match=r"^network: must be a torch.nn.Module"):
        load(backbone="resnet18")
    other = ReprogrammedClassifier.wrap(small_network(), NAMES, image_size=64).backbone
    with pytest.raises(UserError, match=r"^backbone.image_size: must be 32 for this prompt"):
        load(backbone=other)
    with pytest.raises(UserError, match=r"^from_pretrained: takes no such argument .*'backbon'"):
        load(backbon=network)
    with pytest.raises(UserError, match=r"^weights: the network is there already"):
        load(backbone=network, weights="file.pth")
    named = ReprogrammedClassifier.wrap(network, NAMES, image_size=32, classifier_layer="4")
    with pytest.raises(UserError, match=r"^backbone.classifier_layer: must be None for this prom"):
        load(backbone=named.backbone)
    done = run_verb("predict", tmp_path, EXAMPLES, cwd=tmp_path)
    assert done.returncode == 2


def test_ten_prompts_share_one_frozen_network(tmp_path):
    shared, tasks = None, []
    for task in range(10):
        model = fitted("tiny")
        torch.manual_seed(task)
        nn.init.normal_(model.input_transform.pattern)
        model.save_pretrained(tmp_path / str(task))
        again = ReprogrammedClassifier.from_pretrained(tmp_path / str(task), backbone=shared)
        tasks.append((model, again))
        shared = again.backbone
    assert len({id(again.backbone.body) for _, again in tasks}) == 1
    for model, again in tasks:
        assert torch.equal(again(IMAGES), model(IMAGES))
    answers = [again(IMAGES) for _, again in tasks]
    assert not torch.equal(answers[0], answers[1])


def test_a_prompt_goes_to_where_its_network_is(tmp_path):
    """A device that no machine lacks stands in for a GPU: not run on the real thing."""
    model = fitted("tiny")
    model.save_pretrained(tmp_path)
    shared = model.backbone.to(torch.float64)  # as if moved: what follows it must have followed
    moved = []
    places = ReprogrammedClassifier.to

    def spy(self, device):
        moved.append(device)
        return places(self, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReprogrammedClassifier, "to", spy)
        patch.setattr(
            ReprogrammedClassifier, "probabilities", lambda self, images: _seen(moved, images)
        )
        ReprogrammedClassifier.from_pretrained(tmp_path, backbone=shared)
    assert moved == [shared.device]


def _seen(moved, images):
    assert moved, "images are shown before the prompt is where its network is"
    return images


@pytest.mark.parametrize(
    "wrong", [{"mean": [1]}, {"std": [0, 0, 0]}, {"mean": "abc"}, {"image_size": 0}]
)
def test_a_file_that_says_nonsense_of_a_network_is_answered(tmp_path, wrong):
    network = small_network()
    prompt = fitted(network).prompt
    parts = {**prompt.parts, "backbone": {**prompt.parts["backbone"], **wrong}}
    write_prompt(replace(prompt, parts=parts), tmp_path / "p.safetensors")
    with pytest.raises(UserError, match=r"^(backbone\.)?(mean|std|image_size): must be"):
        ReprogrammedClassifier.from_pretrained(tmp_path / "p.safetensors", backbone=network)


def test_a_card_of_a_stranger_is_a_line_of_text(tmp_path):
    network = small_network()
    card = {"a\n# b": "1 |\n\n# Heading\n\n[x](https://evil.example)", "n": 3}
    write_prompt(replace(fitted(network).prompt, card=card), tmp_path / "p.safetensors")
    model = ReprogrammedClassifier.from_pretrained(tmp_path / "p.safetensors", backbone=network)
    model.save_pretrained(tmp_path / "mine")
    text = (tmp_path / "mine/README.md").read_text()
    assert "\n# Heading" not in text
    assert "\n# b" not in text
    assert "[x]" not in text.replace("\\[", "")
    assert "| n | 3 |" in text


def test_a_card_goes_with_the_weights_that_it_was_loaded_with(tmp_path):
    model = fitted("tiny")
    model.card = {"test accuracy": 0.5}
    model.save_pretrained(tmp_path)
    again = ReprogrammedClassifier.from_pretrained(tmp_path)
    assert again.prompt.card == {"test accuracy": 0.5}
    nn.init.zeros_(again.input_transform.pattern)
    assert again.prompt.card == {}
    again.card = {"test accuracy": 0.6}
    assert again.prompt.card == {"test accuracy": 0.6}


@pytest.mark.parametrize("card", [{"x": [1]}, {"x": float("nan")}, {"x": float("inf")}, {3: 4}, 5])
def test_what_is_no_card_is_not_saved(tmp_path, card):
    model = fitted("tiny")
    model.card = card
    with pytest.raises(UserError, match=r"^card: its card must hold texts and finite numbers"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_program_under_hydra_may_wrap(tmp_path):
    (tmp_path / "own.yaml").write_text("x: 1")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        ReprogrammedClassifier.wrap("tiny", NAMES)
        assert compose("own").x == 1  # the user's own goes on


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_files_of_others_are_not_replaced(tmp_path, name):
    model = fitted("tiny")
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=rf"^save_pretrained: holds a {name} that was not saved"):
        model.save_pretrained(tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]
    (tmp_path / name).unlink()
    model.save_pretrained(tmp_path)
    model.save_pretrained(tmp_path)  # its own
    (tmp_path / "model.safetensors").write_text("a pointer to a large file")
    model.save_pretrained(tmp_path)
    save_file(
        {"x": torch.ones(1)}, tmp_path / "model.safetensors", {"format": "smm-lightning prompt 7"}
    )
    (tmp_path / "README.md").unlink()
    model.save_pretrained(tmp_path)  # an older version of this program


def test_folders_that_cannot_be_written_are_a_line(tmp_path, good, monkeypatch):
    model = fitted("tiny")
    (tmp_path / "file").write_text("good")
    for place in (tmp_path / "file", tmp_path / "file/x", "/proc/nope"):
        with pytest.raises(UserError, match=r"^save_pretrained: cannot be written"):
            model.save_pretrained(place)
    with pytest.raises(UserError, match=r"^save_pretrained: is the folder of a run"):
        model.save_pretrained(good / "runs/good")
    (tmp_path / "d.pt2").mkdir()
    with pytest.raises(UserError, match=r"^export: cannot be written"):
        model.export(tmp_path / "d.pt2")
    monkeypatch.setenv("HOME", str(tmp_path))
    model.save_pretrained("~/mine")
    assert ReprogrammedClassifier.from_pretrained("~/mine").class_names == NAMES
    assert (tmp_path / "mine").is_dir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"^push_to_hub: cannot be pushed"):
        model.push_to_hub("someone/lamps")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_exports_compute_in_float32(tmp_path, dtype):
    model = fitted("tiny")
    images = torch.rand(3, 3, 32, 32)
    expected = model.probabilities(images)
    model.to(dtype).export(tmp_path / "m.onnx")
    loaded = load_model(tmp_path / "m.onnx", torch.device("cpu"))
    torch.testing.assert_close(loaded.confidences(images), expected, rtol=0.1, atol=0.02)


def test_images_of_another_form_are_answered():
    model = fitted("tiny")
    for images, what in (
        ((255 * IMAGES).byte(), "floating-point numbers"),
        (IMAGES[0], "shape"),
        (IMAGES[:, :1], "shape"),
        (IMAGES[..., :16], "shape"),
        (IMAGES.numpy(), "a tensor"),
    ):
        with pytest.raises(UserError, match=rf"^images: must .*{what}"):
            model.probabilities(images)


def test_saving_again_writes_the_card_anew(tmp_path):
    model = fitted(small_network())
    for accuracy in (0.5, 0.75):
        model.card = {"test accuracy": accuracy}
        model.save_pretrained(tmp_path)
    assert "| test accuracy | 0.7500 |" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
@pytest.mark.parametrize("method", ["smm", "pad"])
def test_a_wrapped_classifier_is_exported(tmp_path, method, ending):
    model = fitted(small_network(), method=method)
    before = model(torch.zeros(1, 3, model.input_size, model.input_size))
    model.export(tmp_path / f"m{ending}")
    loaded = load_model(tmp_path / f"m{ending}", torch.device("cpu"))
    assert loaded.class_names == NAMES
    images = torch.rand(5, 3, model.input_size, model.input_size)
    torch.testing.assert_close(
        loaded.confidences(images), model.probabilities(images), rtol=1e-4, atol=1e-5
    )
    after = model(torch.zeros(1, 3, model.input_size, model.input_size))
    assert torch.equal(before, after)  # the classifier itself is left as it was


def test_what_cannot_be_saved_or_exported_is_answered(tmp_path):
    model = ReprogrammedClassifier.wrap(small_network(), NAMES, image_size=32)
    for act in (partial(model.save_pretrained, tmp_path), partial(model.export, "m.pt2")):
        with pytest.raises(UserError, match=r"no label mapping or no temperature yet"):
            act()
    model.refit([(IMAGES, TARGETS)])
    with pytest.raises(UserError, match=r"^export: must end with .pt2 or .onnx"):
        model.export(tmp_path / "m.pth")
    parts = model.input_transform, model.backbone, model.label_mapping, NAMES
    made = ReprogrammedClassifier(*parts)
    made.load_state_dict(model.state_dict())
    with pytest.raises(UserError, match=r"a file cannot say what this classifier is built of"):
        made.save_pretrained(tmp_path)


def test_the_card_says_what_people_ask(tmp_path):
    model = fitted(small_network())
    model.class_names = ["dark_*", "<b>bright</b>"]
    model.card = {"dataset": "lamps | mine", "test accuracy": 0.98765}
    model.save_pretrained(tmp_path, model_card_kwargs={"protocol": "held out"})
    card = (tmp_path / "README.md").read_text()
    assert "library_name: smm-lightning" in card
    assert "pipeline_tag: image-classification" in card
    for line in (
        "| task | image classification, 2 classes |",
        "| frozen network | OwnNetwork, images of 32 x 32 |",
        f"| its checksum | `{model.backbone.sha256}` (sha256 of its weights) |",
        "| dataset | lamps \\| mine |",
        "| test accuracy | 0.9877 |",
        "| protocol | held out |",
        "Classes: dark\\_\\*, \\<b>bright\\</b>.",
    ):
        assert line in card.splitlines(), line
    assert "backbone=network" in card
    told = json.loads((tmp_path / "config.json").read_text())
    assert told["card"] == model.card
    again = ReprogrammedClassifier.from_pretrained(tmp_path, backbone=model.backbone)
    assert again.card == model.card


def test_a_run_is_saved_with_its_accuracy(good, tmp_path):
    run = good / "runs/good"
    model = ReprogrammedClassifier.from_pretrained(run)
    result = json.loads((run / "result.json").read_text())
    assert model.card["test accuracy"] == result["test/acc_last"]
    assert model.card["dataset"] == result["config"]["dataset"]["name"]
    words = "--format", "folder", "--output", tmp_path / "mine"
    done = run_verb("export", run, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    saved = ReprogrammedClassifier.from_pretrained(tmp_path / "mine")
    images = torch.rand(2, 3, model.input_size, model.input_size)
    assert torch.equal(saved(images), model(images))
    assert (
        f"| test accuracy | {result['test/acc_last']:.4f} |"
        in (tmp_path / "mine/README.md").read_text()
    )


def test_it_is_pushed_to_and_fetched_from_the_hub(tmp_path, monkeypatch):
    """Against a stand-in: not run on the real thing, which needs an account."""
    import huggingface_hub.hub_mixin as mixin

    from smm_lightning.classifier import sharing

    hub = tmp_path / "hub"

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **_):
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, *, repo_id, folder_path, **_):
            for file in Path(folder_path).iterdir():
                target = hub / repo_id / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(mixin, "HfApi", Api)
    fetch = lambda repository, file, **_: str(hub / repository / file)  # noqa: E731
    monkeypatch.setattr(sharing, "hf_hub_download", fetch)
    model = fitted("tiny")
    assert model.push_to_hub("someone/lamps") == "https://hub/someone/lamps"
    names = {file.name for file in (hub / "someone/lamps").iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors"}
    monkeypatch.chdir(tmp_path)
    again = ReprogrammedClassifier.from_pretrained("someone/lamps")
    assert torch.equal(again(IMAGES), model(IMAGES))


def test_what_is_neither_here_nor_on_the_hub_is_answered(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("someone/none", "./none.safetensors"):
        with pytest.raises(UserError, match=r"^from_pretrained: is no file or folder here, and no"):
            ReprogrammedClassifier.from_pretrained(name)


def test_trainable_parameters_are_printed_as_by_peft(capsys):
    model = fitted(small_network())
    model.print_trainable_parameters()
    words = re.fullmatch(
        r"trainable params: ([\d,]+) \|\| all params: ([\d,]+) \|\| trainable%: ([\d.]+)\n",
        capsys.readouterr().out,
    )
    trained, total = (int(number.replace(",", "")) for number in words.groups()[:2])
    assert trained == sum(weight.numel() for weight in model.parameters())
    assert total == trained + sum(weight.numel() for weight in small_network().parameters())
    assert float(words[3]) == pytest.approx(100 * trained / total, abs=1e-4)


class Outside(InputTransform):
    def __init__(self, image_size, mean, std, strength: float = 1.0):
        super().__init__(image_size, mean, std)
        self.strength = strength
        self.colour = nn.Parameter(torch.zeros(3, 1, 1))

    def forward(self, images):
        return self.normalize(images) + self.strength * self.colour

    def mask(self, images):
        return torch.ones_like(images)

    def parameter_groups(self):
        return {"pattern": [self.colour]}


def test_a_method_from_outside_is_loaded_by_who_trusts_it(tmp_path):
    network = small_network()
    model = fitted(network, method=partial(Outside, strength=0.5))
    model.save_pretrained(tmp_path)
    load = partial(ReprogrammedClassifier.from_pretrained, tmp_path, backbone=network)
    with pytest.raises(UserError, match=r"^method: the file names a class outside this package"):
        load()
    assert load(trust=__name__).input_transform.strength == 0.5
    again = load(trust=[__name__])
    assert again.input_transform.strength == 0.5
    assert torch.equal(again(IMAGES), model(IMAGES))

    class Inner(Outside):
        pass

    with pytest.raises(UserError, match=r"^prompt: a file cannot name the class of its method"):
        fitted(network, method=Inner).save_pretrained(tmp_path)
    unsayable = fitted(network, method=Outside)
    unsayable.nodes = {"method": {"strength": object()}}
    with pytest.raises(UserError, match=r"a file cannot say what this classifier is built of"):
        unsayable.save_pretrained(tmp_path)


# Lines that do something: without imports, comments and docstrings.
EXAMPLE_LINES = {"own_loop": 10, "plain_trainer": 25, "outside_method": 20, "ten_prompts": 15}


@pytest.mark.parametrize("name", EXAMPLE_LINES)
def test_examples_run_and_are_short(tmp_path, name):
    text = (EXAMPLES / f"{name}.py").read_text()
    code = re.sub(r'""".*?"""', "", text, flags=re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip()]
    lines = [line for line in lines if not line.lstrip().startswith(("#", "import ", "from "))]
    assert len(lines) <= EXAMPLE_LINES[name]
    done = run_file(EXAMPLES / f"{name}.py", cwd=tmp_path, PYTHONPATH=str(EXAMPLES))
    assert done.returncode == 0, done.stderr
    saved = next(tmp_path.glob("*/model.safetensors"))
    assert saved.stat().st_size < 250_000
