"""Two thousand spoilt files: each is used as it is, or answered by a line; nothing else."""

import copy
import json
import random

import pytest
import torch
from safetensors.torch import save

from smm_lightning.classifier.prompt_file import FORMAT, _sha256, read_prompt
from smm_lightning.dataset.coop import read_split
from smm_lightning.errors import UserError
from smm_lightning.inference.model import load_model
from smm_lightning.report.__main__ import report_of, write_report
from smm_lightning.report.layout import Layout
from smm_lightning.report.runs import run_in
from smm_lightning.run.result import FILE

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")
JUNK = (None, True, -1, 0, 10**9, 1e300, float("nan"), "", "x", "\x1b[2J", "$\\frac{", [], {}, [[]])
JUNK = (*JUNK, {"_target_": "os.getcwd"}, "../../x", "${oc.env:HOME}", "=1", "\ud800", ["x"] * 50)


def places(node, place=()):
    """Of everything in nested groups and lists."""
    if place:
        yield place
    if isinstance(node, dict | list):
        for key, inner in node.items() if isinstance(node, dict) else enumerate(node):
            yield from places(inner, (*place, key))


def edited(content, rng):
    """A copy in which some entries are others, or gone."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        known = list(places(content))
        if not known:
            break
        *way, last = rng.choice(known)
        node = content
        for key in way:
            node = node[key]
        if rng.random() < 0.25:
            del node[last]
        else:
            node[last] = copy.deepcopy(rng.choice(JUNK))
    return content


def scrambled(content, rng):
    """Bytes in which some are others, more, or gone."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 3, 20))):
        place = rng.randrange(len(content) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            content[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            content[place:place] = rng.randbytes(rng.randrange(9))
        elif kind == 2:
            del content[place : place + rng.randrange(100)]
        else:
            del content[place:]
    return bytes(content)


def answer(function, *arguments):
    """What a reader gives; ``None`` where it says in lines why it does not."""
    try:
        return function(*arguments)
    except UserError as error:
        return None if all(error.problems) and error.problems else pytest.fail("without a word")


def answered(path):
    """Whether a model answers; if it does not, a line must say why."""
    model = answer(load_model, path, CPU)
    if model is None:
        return False
    confidences = model.confidences(torch.rand(1, 3, model.input_size, model.input_size))
    assert confidences.isfinite().all()
    assert confidences.shape == (1, len(model.class_names))
    return True


def test_prompt_files(good, tmp_path):
    rng = random.Random(0)
    whole = (good / "runs/good/model.safetensors").read_bytes()
    prompt, path = read_prompt(good / "runs/good/model.safetensors"), tmp_path / "x.safetensors"
    used = 0
    for number in range(700):
        if number % 2:
            path.write_bytes(scrambled(whole, rng))
            # The checksum notices all that is not in the padding of the header.
            used += answered(path)
        else:
            read = {name: value for name, value in prompt.facts.items() if name != "card"}
            content = {**prompt.facts, **edited(read, rng)}  # a card may say anything
            facts = {name: json.dumps(content.get(name)) for name in prompt.facts}
            facts |= {"format": FORMAT}
            facts["sha256"] = _sha256(facts, prompt.weights)
            path.write_bytes(save(prompt.weights, facts))
            used += answered(path)
    assert used < 70


def test_checkpoints(good, tmp_path):
    rng = random.Random(1)
    whole, path = (good / "runs/good/last.ckpt").read_bytes(), tmp_path / "x.ckpt"
    content = torch.load(good / "runs/good/last.ckpt", weights_only=True)
    read = {name: content[name] for name in ("identity", "parts", "state_dict")}
    for number in range(400):
        if number % 2:
            path.write_bytes(scrambled(whole, rng))
        else:
            torch.save({**content, **edited(read, rng)}, path)
        answered(path)


def test_results(good, tmp_path):
    rng = random.Random(2)
    whole = (good / "runs/good" / FILE).read_bytes()
    content, folder = json.loads(whole), tmp_path / "run"
    folder.mkdir()
    reported = 0
    for number in range(600):
        if number % 2:
            (folder / FILE).write_bytes(scrambled(whole, rng))
        else:
            (folder / FILE).write_text(json.dumps(edited(content, rng)))
        run = answer(run_in, folder)
        if run is None:
            continue
        reported += 1
        write_report(report_of("x", [run], Layout()), [run], tmp_path / "out")
        assert run.look.label
    assert reported > 50


def test_split_files(tmp_path):
    rng, path = random.Random(3), tmp_path / "split.json"
    rows = [
        [f"{label}/{number}.jpg", label, f"class {label}"]
        for label in range(3)
        for number in range(4)
    ]
    content = {"train": rows[::2], "test": rows[1::4], "val": rows[3::4]}
    whole = json.dumps(content).encode()
    read = 0
    for number in range(300):
        if number % 2:
            path.write_bytes(scrambled(whole, rng))
        else:
            path.write_text(json.dumps(edited(content, rng)))
        split = answer(read_split, path)
        if split is None:
            continue
        read += 1
        assert all(isinstance(name, str) for name in split.class_names)
    assert 0 < read < 150
