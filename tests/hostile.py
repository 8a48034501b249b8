"""Damaged and hostile files, made from good ones: each function spoils one, a name says how."""

import io
import json
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save

import smm_lightning.__main__ as command
from smm_lightning import train as entry
from smm_lightning.classifier import prompt_file
from smm_lightning.run.result import FILE

SMALL = ("backbone=tiny", "trainer=cpu", "dataset.train_images=100", "dataset.test_images=50")
SMALL = (*SMALL, "dataset.batch_size=20", "threads=1")


def make_good(root):
    """A finished run, its exports, and images."""
    options = [*SMALL, "epochs=1", f"paths.run={root}/runs/good"]
    with initialize_config_dir(str(entry.CONF), version_base="1.3"):
        entry.train(compose("train", [*options, f"paths.image_cache={root}/image_cache"]))
    for form in ("prompt", "torch", "onnx"):
        answer_of("export", root / "runs/good", "--format", form)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "image.png")
    return root


def answer_of(verb, *words):
    """The exit status of a command, in this process."""
    GlobalHydra.instance().clear()
    try:
        command.run(verb, [str(word) for word in words])
    except SystemExit as left:
        return left.code or 0
    raise AssertionError("a command must leave with a status")


def copy_of(good, suffix, folder):
    """Of one of the models: a file that may be spoilt."""
    source = good / "runs/good" / ("last.ckpt" if suffix == ".ckpt" else f"model{suffix}")
    return Path(shutil.copy(source, folder / f"spoilt{suffix}"))


# -- prompt files ---------------------------------------------------------------------------------


def spoil_prompt(path, spoil):
    """Change facts and weights, with the checksum that belongs to them."""
    with safe_open(path, framework="pt") as file:
        facts, names = file.metadata(), list(file.keys())
        weights = {name: file.get_tensor(name) for name in names}
    spoil(facts, weights)
    with suppress(KeyError):
        facts["sha256"] = prompt_file._sha256(facts, weights)
    path.write_bytes(save({k: v.contiguous() for k, v in weights.items()}, facts))


def fact(name, text):
    """A fact that is another text."""
    return lambda facts, _: facts.update({name: text})


def parts(change):
    """Parts after a change."""

    def spoil(facts, _):
        content = json.loads(facts["parts"])
        change(content)
        facts["parts"] = json.dumps(content)

    return spoil


def argument(part, name, value):
    """An argument of a part that is another one."""
    return parts(lambda content: content[part].update({name: value}))


def weight(name, change):
    """A tensor after a change."""
    return lambda _, weights: weights.update({name: change(weights[name])})


INDEX, PATTERN = "label_mapping.index", "input_transform.pattern"
DEEP = "[" * 10_000 + "]" * 10_000
TEN = [str(number) for number in range(10)]
PROMPTS = {
    # of shared/bad_inputs
    "parts a list": fact("parts", "[1]"),
    "parts a number": fact("parts", "3"),
    "parts a text": fact("parts", '"x"'),
    "parts without a backbone": parts(lambda content: content.pop("backbone")),
    "class names a number": fact("class_names", "3"),
    "class names objects": fact("class_names", json.dumps([{}] * 10)),
    "class names too many": fact("class_names", json.dumps([*TEN, "a"])),
    "class names too few": fact("class_names", json.dumps(TEN[1:])),
    "class names with escape codes": fact("class_names", json.dumps([*TEN[1:], "\x1b[2Ja"])),
    "image size": argument("backbone", "image_size", 10**9),
    "layers": argument("method", "layers", 10**9),
    "metadata nested deep": fact("parts", DEEP),
    "mapping of no classes": weight(INDEX, lambda index: torch.full_like(index, -1)),
    "mapping of floats": weight(INDEX, lambda index: index.float()),
    "mapping of NaN": weight(INDEX, lambda index: index * torch.nan),
    "pattern with NaN": weight(PATTERN, lambda pattern: pattern * torch.nan),
    # our own
    "parts null": fact("parts", "null"),
    "parts of texts": parts(lambda content: content.update(method="x")),
    "no decoding": parts(lambda content: content.pop("decoding")),
    "decoding of no colour": argument("decoding", "background", "nope"),
    "decoding of a file": argument("decoding", "exif", "/etc/passwd"),
    "decoding unknown": argument("decoding", "nope", 1),
    "a class of others": argument("method", "_target_", "os.system"),
    "a class that is none": argument("method", "_target_", "smm_lightning.method.INTERPOLATIONS"),
    "a class within": argument("method", "layers", {"_target_": "os.getcwd"}),
    "a list of classes": argument("backbone", "classes", [{"_target_": "os.getcwd"}]),
    "no class": parts(lambda content: content["mapping"].pop("_target_")),
    "an unknown argument": argument("mapping", "nope", 1),
    "an argument of code": argument("method", "mean", [0, 0, 0]),
    "a size that is true": argument("backbone", "image_size", True),
    "a patch size of 3": argument("method", "patch_size", 3),
    "another seed of the network": argument("backbone", "seed", 5),
    "a file of weights": argument("backbone", "weights", "/nope.pt"),
    "class names twice": fact("class_names", json.dumps([*TEN[1:], "1"])),
    "class names alike": fact("class_names", json.dumps([*TEN[2:], "\xe9", "e\u0301"])),
    "class names null": fact("class_names", "null"),
    "no class names": lambda facts, _: facts.pop("class_names"),
    "frozen weights a number": fact("backbone_sha256", "3"),
    "another version": fact("format", "smm-lightning prompt 1"),
    "numbers that are none": fact("parts", '{"backbone": NaN}'),
    "mapping out of range": weight(INDEX, lambda index: index + 1000),
    "mapping twice": weight(INDEX, torch.zeros_like),
    "mapping of five": weight(INDEX, lambda index: index[:5]),
    "pattern of integers": weight(PATTERN, lambda pattern: pattern.long()),
    "pattern of infinity": weight(PATTERN, lambda pattern: pattern + torch.inf),
    "pattern of another size": weight(PATTERN, lambda pattern: pattern[:, :5]),
    "no pattern": lambda _, weights: weights.pop(PATTERN),
    "another tensor": lambda _, weights: weights.update(x=torch.zeros(3)),
    "compiled": lambda _, weights: weights.update({f"_orig_mod.{PATTERN}": weights.pop(PATTERN)}),
    "an abstract class": argument("mapping", "_target_", "smm_lightning.mapping.LabelMapping"),
    "weights whose answers are NaN": weight(PATTERN, lambda p: torch.full_like(p, 3e38)),
    "temperature 0": weight("temperature", torch.zeros_like),
    "temperature below 0": weight("temperature", lambda t: -t),
    "temperature of NaN": weight("temperature", lambda t: t * torch.nan),
    "temperature of infinity": weight("temperature", lambda t: t + torch.inf),
}


# -- checkpoints ----------------------------------------------------------------------------------


def spoil_checkpoint(path, spoil):
    """Change what it holds."""
    checkpoint = torch.load(path, weights_only=True)
    spoil(checkpoint)
    torch.save(checkpoint, path)


def entry_of(*place, value):
    """An entry of a checkpoint that is another one."""

    def spoil(node):
        for name in place[:-1]:
            node = node[name]
        node[place[-1]] = value

    return spoil


def without(*place):
    """A checkpoint without an entry."""

    def spoil(node):
        for name in place[:-1]:
            node = node[name]
        del node[place[-1]]

    return spoil


def compiled(checkpoint):
    """Names as ``torch.compile`` makes them."""
    state = checkpoint["state_dict"]
    for name in list(state):
        state[name.replace("classifier.", "classifier._orig_mod.", 1)] = state.pop(name)


STATE_INDEX = f"classifier.{INDEX}"
# Of these a checkpoint can neither predict nor be gone on from.
CHECKPOINTS = {
    # of shared/bad_inputs
    "mapping of no classes": entry_of("state_dict", STATE_INDEX, value=torch.full((10,), -1)),
    "identity a list": entry_of("identity", value=[1]),
    "identity empty": entry_of("identity", value={}),
    "no weights": without("state_dict"),
    "parts a text": entry_of("parts", value="x"),
    "compiled": compiled,
    # our own
    "no identity": without("identity"),
    "another version": entry_of("identity", "schema", value=1),
    "weights that are numbers": entry_of("state_dict", "classifier.temperature", value=3),
    "weights of no names": entry_of("state_dict", value={1: torch.zeros(1)}),
    "weights empty": entry_of("state_dict", value={}),
    "weights without numbers": entry_of(
        "state_dict", f"classifier.{PATTERN}", value=torch.zeros(3, 32, 32, device="meta")
    ),
    "weights that are sparse": entry_of(
        "state_dict", f"classifier.{PATTERN}", value=torch.zeros(3, 32, 32).to_sparse()
    ),
    "mapping out of range": entry_of("state_dict", STATE_INDEX, value=torch.arange(10) + 1000),
    "mapping twice": entry_of("state_dict", STATE_INDEX, value=torch.zeros(10).long()),
    "pattern of another size": entry_of(
        "state_dict", f"classifier.{PATTERN}", value=torch.zeros(3, 5, 5)
    ),
    "no temperature": without("state_dict", "classifier.temperature"),
    "frozen weights of others": entry_of("identity", "backbone_sha256", value="0" * 64),
}
# These predict, but no training goes on from them.
UNFINISHED = {
    # of shared/bad_inputs
    "no optimiser": without("optimizer_states"),
    "no sums": without("sums"),
    "no loops": without("loops"),
    "history of texts": entry_of("callbacks", "EpochRecorder", "history", value=["x"]),
    "history of strange numbers": entry_of(
        "callbacks", "EpochRecorder", "history", 0, "train/loss", value="x"
    ),
    # our own
    "optimisers empty": entry_of("optimizer_states", value=[]),
    "optimiser of texts": entry_of("optimizer_states", 0, value={"state": "x"}),
    "momenta of another size": entry_of(
        "optimizer_states", 0, "state", 0, "exp_avg", value=torch.zeros(3)
    ),
    "momenta missing": without("optimizer_states", 0, "state", 1),
    "momenta a text": entry_of("optimizer_states", 0, "state", 0, "exp_avg", value="x"),
    "no schedule": without("lr_schedulers"),
    "schedule empty": entry_of("lr_schedulers", 0, value={}),
    "sums of another size": entry_of("sums", "acc", "tp", value=torch.zeros(7)),
    "sums of texts": entry_of("sums", "acc", value="x"),
    "loops of texts": entry_of(
        "loops", "fit_loop", "epoch_progress", "current", "processed", value="x"
    ),
    "loops below 0": entry_of(
        "loops", "fit_loop", "epoch_progress", "current", "processed", value=-1
    ),
    "history of other epochs": lambda c: c["callbacks"]["EpochRecorder"]["history"].insert(
        0, {**c["callbacks"]["EpochRecorder"]["history"][0], "epoch": 5}
    ),
    "history of accuracies above 1": entry_of(
        "callbacks", "EpochRecorder", "history", 0, "test/acc", value=99.0
    ),
    "momenta of NaN": entry_of(
        "optimizer_states", 0, "state", 0, "exp_avg", value=torch.full((3, 32, 32), torch.nan)
    ),
    "a schedule that replaces methods": entry_of("lr_schedulers", 0, "step", value=3),
    "steps below 0": entry_of("global_step", value=-1),
    "steps a text": entry_of("global_step", value="x"),
    "mapping's log a list": entry_of("mapping", "log", value=[1]),
    "counts out of range": entry_of(
        "mapping", value={"log": {}, "cells": torch.tensor([10**9]), "statistics": torch.ones(1)}
    ),
    "no callbacks": without("callbacks"),
    "settings of others": entry_of("training", "optimizer", "algorithm", value={"_target_": "x"}),
    "another method": entry_of("identity", "method", value="pad"),
    "images of others": entry_of("identity", "images", "train", "digest", value="0" * 64),
}


# -- exports --------------------------------------------------------------------------------------


class Runs:
    """Unpickled, it writes a file."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return exec, (code(self.witness),)


def code(witness):
    """That writes a file."""
    return f"open({str(witness)!r}, 'w').close()"


def spoil_archive(path, spoil):
    """Change the members of a ``.pt2``: a dictionary of bytes by names, without the root."""
    with zipfile.ZipFile(path) as old:
        members = {name.partition("/")[2]: old.read(name) for name in old.namelist()}
    spoil(members)
    method = zipfile.ZIP_DEFLATED if members.pop("compressed", None) else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as new:
        for name, content in members.items():
            new.writestr(f"archive/{name}", content)


def member(name, change):
    """A member of JSON after a change."""

    def spoil(members):
        content = json.loads(members[name])
        change(content)
        members[name] = json.dumps(content).encode()

    return spoil


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


GRAPH, FACTS = "models/model.json", "extra/smm_lightning.json"
WEIGHTS, SAMPLES = "data/weights/model_weights_config.json", "data/sample_inputs/model.pt"


def node(change):
    """The first node of a graph after a change."""
    return member(GRAPH, lambda g: change(g["graph_module"]["graph"]["nodes"][0]))


def size_that_runs(witness):
    """A size that is evaluated."""

    def change(program):
        sizes = program["graph_module"]["graph"]["sym_int_values"]
        next(iter(sizes.values()))["as_expr"]["expr_str"] = f"exec({code(witness)!r})"

    return member(GRAPH, change)


def weight_that_runs(witness):
    """A weight that is a pickle."""

    def spoil(members):
        config = json.loads(members[WEIGHTS])
        first = next(iter(config["config"].values()))
        first["use_pickle"] = True
        members[f"data/weights/{first['path_name']}"] = saved(Runs(witness))
        members[WEIGHTS] = json.dumps(config).encode()

    return spoil


def guard_that_runs(witness):
    """A guard is Python code."""
    text = f"({code(witness)}) or True"
    return member(GRAPH, lambda program: program.update(guards_code=[text]))


# Of these PyTorch's own loader runs the code; a test looks that it does.
HOSTILE_ARCHIVES = {
    "samples": lambda witness: lambda m: m.update({SAMPLES: saved(Runs(witness))}),
    "a weight": weight_that_runs,
    "all weights": lambda w: lambda m: m.update({"data/weights/model.pt": saved(Runs(w))}),
    "a size": size_that_runs,
    "a guard": guard_that_runs,
}
ARCHIVES = {
    # of shared/bad_inputs
    "facts empty": lambda members: members.update({FACTS: b"{}"}),
    "names too many": member(FACTS, lambda facts: facts["class_names"].append("more")),
    "names too few": member(FACTS, lambda facts: facts["class_names"].pop()),
    "size 10^9": member(FACTS, lambda facts: facts.update(input_size=10**9)),
    "size of others": member(FACTS, lambda facts: facts.update(input_size=64)),
    # our own
    "facts a list": lambda members: members.update({FACTS: b"[]"}),
    "facts nested deep": lambda members: members.update({FACTS: DEEP.encode()}),
    "no facts": lambda members: members.pop(FACTS),
    "names with escape codes": member(FACTS, lambda f: f["class_names"].__setitem__(0, "\x1b")),
    "decoding of no colour": member(FACTS, lambda f: f["decoding"].update(background="nope")),
    "decoding unknown": member(FACTS, lambda f: f["decoding"].update(nope=True)),
    "a function": node(lambda one: one.update(target="torch.load")),
    "a method caller": node(lambda one: one.update(target="_operator.methodcaller")),
    "an operation on files": node(
        lambda one: one.update(target="torch.ops.aten.from_file.default")
    ),
    "an operator as an argument": node(
        lambda one: one["inputs"][1].update(arg={"as_operator": "torch.ops.aten.from_file.default"})
    ),
    "an operation named in an argument": node(
        lambda one: one["inputs"][1].update(
            arg={"as_string": "a file"}, target="torch.ops.aten.einsum.default"
        )
    ),
    "an operation without bounds": node(
        lambda one: one.update(target="torch.ops.aten._reshape_alias.default")
    ),
    "a node that is a function": node(lambda one: one.update(name="torch.softmax")),
    "a name that is code": member(
        GRAPH,
        lambda g: g["graph_module"]["graph"]["inputs"][0]["as_tensor"].update(name="x=print(1)"),
    ),
    "a tree of others": member(
        GRAPH,
        lambda g: g["graph_module"]["module_call_graph"][0]["signature"].update(in_spec="[1, {}]"),
    ),
    "another member": lambda members: members.update({"data/aotinductor/model/x.so": b"x"}),
    "no graph": lambda members: members.pop(GRAPH),
    "graph a number": lambda members: members.update({GRAPH: b"3"}),
    "no weight": lambda members: members.pop("data/weights/weight_0"),
    "weight of another size": lambda m: m.update({"data/weights/weight_0": bytes(8)}),
    "weight of NaN": lambda m: m.update({"data/weights/weight_0": b"\xff" * 12288}),
    "compressed": lambda members: members.update(compressed=b"x"),
}


def spoil_onnx(path, change):
    """Change a model."""
    import onnx

    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())


def onnx_facts(**changes):
    """Facts of a model that are others."""

    def change(model):
        for property_ in model.metadata_props:
            facts = json.loads(property_.value)
            property_.value = json.dumps({**facts, **changes} if changes else {})

    return change


def elsewhere(model):
    """A weight that lies in another file."""
    import onnx

    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


ONNX = {
    # of shared/bad_inputs
    "facts empty": onnx_facts(),
    "size of others": onnx_facts(input_size=64),
    "names too few": onnx_facts(class_names=["a"]),
    # our own
    "size a text": onnx_facts(input_size="64"),
    "no facts": lambda model: model.ClearField("metadata_props"),
    "a weight in another file": elsewhere,
    "no graph": lambda model: model.ClearField("graph"),
}


# -- results --------------------------------------------------------------------------------------


def result_text(good):
    """The result of the good run."""
    return (good / "runs/good" / FILE).read_text()


def changed(**changes):
    """A result with other entries, dots in their names as ``__``."""

    def spoil(text):
        content = json.loads(text)
        for name, value in changes.items():
            *place, leaf = name.split("__")
            inner = content
            for key in place:
                inner = inner[key]
            inner[leaf] = value
        return json.dumps(content)

    return spoil


RESULTS = {
    # of shared/bad_inputs
    "a list": lambda _: "[1, 2]",
    "a number": lambda _: "3",
    "null": lambda _: "null",
    "nested deep": lambda _: DEEP,
    "no config": lambda text: json.dumps({**json.loads(text), "config": None}),
    "an accuracy of words": changed(**{"test/acc_last": "x"}),
    # our own
    "empty": lambda _: "",
    "half": lambda text: text[: len(text) // 2],
    "NaN": lambda text: text.replace('"test/acc_last": ', '"test/acc_last": NaN, "y": '),
    "a number of 5,000 digits": lambda text: text.replace('"seed": 0', f'"seed": {"9" * 5000}', 1),
    "a config of texts": changed(config="x"),
    "a name that is a path": changed(config__dataset__name="../../x"),
    "a name that is a list": changed(config__method__name=["x"]),
    "a history of words": changed(history=["x"]),
    "no history": changed(history=[]),
    "a history without epochs": changed(history=[{"train/loss": 1.0}]),
    "a seed that is true": changed(seed=True),
    "images of words": changed(images={"train": "x"}),
    "a mapping of words": changed(mapping=["x"]),
    "class names of numbers": changed(class_names=[1]),
    "versions of words": changed(environment="x"),
    "chosen on what": changed(**{"best/selected_on": "train"}),
    "an accuracy of 10^400": changed(**{"test/acc_last": 10**400}),
    "an accuracy above 1": changed(**{"test/acc_best_val": 99.0}),
    "a card of words": changed(card="x"),
    "another protocol": changed(card={"protocol": "mine"}),
    "a card of lists": changed(card={"protocol": "strict", "x": [1]}),
    "a metric of words": changed(**{"val/acc": "x"}),
}
