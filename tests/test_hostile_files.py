"""Damaged and hostile files: a line for each problem, no code run, no good file lost.

The files of shared/bad_inputs, and as many of our own, over predict, export, report, figures and
trainings that go on. All in one process, through the real command.
"""

import json
import os
import re
import resource
import shutil
from pathlib import Path

import pytest

from smm_lightning.classifier.export_archive import looked_at
from smm_lightning.run.result import FILE
from tests import hostile
from tests.hostile import SMALL, answer_of, copy_of
from tests.programs import run_file


@pytest.fixture
def refused(monkeypatch, capfd, tmp_path):
    """Run a command that must say what is wrong, in lines, and leave with the status 2."""
    monkeypatch.chdir(tmp_path)

    def run(verb, *words, about=r".*"):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # each command sets it
        capfd.readouterr()
        status = answer_of(verb, *words)
        shown = capfd.readouterr()
        assert status == 2, shown
        lines = [line for line in shown.err.splitlines() if line]
        assert lines
        assert all(re.match(r"(error|going on|wandb|left out): ?\S", line) for line in lines), lines
        assert re.search(about, shown.err)
        assert "Traceback" not in shown.out + shown.err
        assert all(len(line) < 2000 for line in lines)
        return shown.err

    return run


LOADING = "import sys, torch; torch.export.load(sys.argv[1]).module()(torch.rand(2, 3, 32, 32))"


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("spoil", hostile.PROMPTS.values(), ids=hostile.PROMPTS)
def test_a_spoilt_prompt_predicts_nothing(good, spoil, tmp_path, refused):
    path = copy_of(good, ".safetensors", tmp_path)
    hostile.spoil_prompt(path, spoil)
    refused("predict", path, good / "image.png")


def test_prompts_that_were_changed_without_their_checksum(good, tmp_path, refused):
    path = copy_of(good, ".safetensors", tmp_path)
    content = path.read_bytes()
    for place in (len(content) - 5, len(content) // 2, content.index(b"patchwise")):
        flipped = bytearray(content)
        flipped[place] ^= 1
        path.write_bytes(bytes(flipped))
        refused("predict", path, good / "image.png")


@pytest.mark.parametrize("content", [b"", b"<html>", b"\0" * 100], ids=["empty", "page", "zeros"])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pt2", ".onnx"])
def test_what_is_no_model(suffix, content, good, tmp_path, refused):
    path = copy_of(good, suffix, tmp_path)
    whole = path.read_bytes()
    for spoilt in (
        content,
        content + whole[len(content) + 50 :],
        whole[: len(whole) // 2] + content,
    ):
        path.write_bytes(spoilt)
        refused("predict", path, good / "image.png")
    os.truncate(path, 0)
    path.unlink()
    os.mkfifo(path)
    refused("predict", path, good / "image.png")
    refused("predict", f"/dev/zero{suffix}", good / "image.png")
    refused("predict", good, good / "image.png")  # a folder without a run


@pytest.mark.parametrize("spoil", hostile.CHECKPOINTS.values(), ids=hostile.CHECKPOINTS)
def test_a_spoilt_checkpoint_is_refused(good, spoil, tmp_path, refused):
    path = copy_of(good, ".ckpt", tmp_path)
    hostile.spoil_checkpoint(path, spoil)
    before = path.read_bytes()
    refused("predict", path, good / "image.png")
    refused("export", path, "--format", "torch")
    go_on(path, good, refused)
    assert path.read_bytes() == before


@pytest.mark.parametrize("spoil", hostile.UNFINISHED.values(), ids=hostile.UNFINISHED)
def test_a_checkpoint_without_its_training_predicts_and_does_not_go_on(
    good, spoil, tmp_path, refused, capfd
):
    path = copy_of(good, ".ckpt", tmp_path)
    hostile.spoil_checkpoint(path, spoil)
    go_on(path, good, refused)
    assert answer_of("predict", path, good / "image.png") == 0
    assert "image.png" in capfd.readouterr().out


def go_on(path, good, refused):
    where = (f"ckpt_path={path}", "paths.run=other", f"paths.image_cache={good}/image_cache")
    refused("train", *SMALL, "epochs=2", *where)
    assert not Path("other", FILE).exists()


@pytest.mark.parametrize("spoil", hostile.ARCHIVES.values(), ids=hostile.ARCHIVES)
def test_a_spoilt_archive_predicts_nothing(good, spoil, tmp_path, refused):
    path = copy_of(good, ".pt2", tmp_path)
    hostile.spoil_archive(path, spoil)
    refused("predict", path, good / "image.png", about="is no export of this program|decoding")


@pytest.mark.parametrize("make", hostile.HOSTILE_ARCHIVES.values(), ids=hostile.HOSTILE_ARCHIVES)
def test_a_hostile_archive_runs_no_code(good, make, tmp_path, refused):
    path, witness = copy_of(good, ".pt2", tmp_path), tmp_path / "witness"
    hostile.spoil_archive(path, make(witness))
    try:
        refused("predict", path, good / "image.png", about="is no export of this program")
    except AssertionError:  # a guard is left out, and what is left is a good export
        assert answer_of("predict", path, good / "image.png") == 0
    assert not witness.exists()
    loading = tmp_path / "loading.py"
    loading.write_text(LOADING)
    run_file(loading, path, cwd=tmp_path)
    assert witness.exists()  # of PyTorch's own loader: else this test would show nothing


def test_a_good_archive_is_written_anew_with_all_that_it_holds(good):
    content = (good / "runs/good/model.pt2").read_bytes()
    copy, facts = looked_at(content)
    assert json.loads(facts)["class_names"] == hostile.TEN
    assert looked_at(copy)[0] == copy


@pytest.mark.parametrize("spoil", hostile.ONNX.values(), ids=hostile.ONNX)
def test_a_spoilt_onnx_predicts_nothing(good, spoil, tmp_path, refused):
    path = copy_of(good, ".onnx", tmp_path)
    hostile.spoil_onnx(path, spoil)
    refused("predict", path, good / "image.png", about="is no export of this program")


def test_spoilt_results_are_named_and_the_others_are_reported(good, tmp_path, capfd):
    runs = tmp_path / "runs"
    shutil.copytree(good / "runs/good", runs / "good")
    for name, spoil in hostile.RESULTS.items():
        (runs / name).mkdir()
        (runs / name / FILE).write_text(spoil(hostile.result_text(good)))
    assert answer_of("report", runs) == 0
    shown = capfd.readouterr()
    assert "1 of 1 runs are finished" in shown.out
    assert answer_of("figures", runs, "--only", "curves,training") == 0
    drawn = capfd.readouterr()
    assert "good/figures/curves.png" in drawn.out
    for name in hostile.RESULTS:
        why = rf"{re.escape(f'{runs}/{name}/{FILE}')}: (is no|cannot be read as a) result \(.+\)\."
        assert len(re.findall(rf"- Left out: {why}\n", shown.out)) == 1, name
        assert len(re.findall(rf"left out: {why}\n", drawn.err)) == 1, name
    assert "Traceback" not in shown.err + drawn.err


def test_a_result_that_is_a_pipe_is_not_waited_for(good, tmp_path, capfd, refused):
    runs = tmp_path / "runs"
    shutil.copytree(good / "runs/good", runs / "good")
    (runs / "pipe").mkdir()
    os.mkfifo(runs / "pipe" / FILE)
    assert answer_of("report", runs) == 0
    assert "pipe/result.json: cannot be read as a result" in capfd.readouterr().out
    shutil.rmtree(runs / "good")
    refused("report", runs, about="no finished run in this folder")
    refused("figures", runs, about="no finished run in this folder")


def test_figures_build_no_class_that_a_result_names(good, tmp_path, refused, monkeypatch):
    runs = tmp_path / "runs"
    shutil.copytree(good / "runs/good", runs / "good")
    witness = tmp_path / "witness"
    (tmp_path / "hostile_part.py").write_text(hostile.code(witness))
    monkeypatch.syspath_prepend(str(tmp_path))
    result = json.loads(hostile.result_text(good))
    for name in ("source", "facts"):
        node = {**result["config"]["dataset"], name: {"_target_": "hostile_part.X"}}
        changed = {**result, "config": {**result["config"], "dataset": node}}
        (runs / "good" / FILE).write_text(json.dumps(changed))
        refused("figures", runs, "--only", "pictures", about="a class outside this package")
    hostile.spoil_checkpoint(
        runs / "good/last.ckpt", lambda c: c["parts"]["method"].update(_target_="hostile_part.X")
    )
    refused("figures", runs / "good", "--only", "pictures", about="a class outside this package")
    assert not witness.exists()
    trusted = ("--only", "pictures", "--trust", "hostile_part")
    refused("figures", runs, *trusted, about="the file names no InputTransform")
    assert witness.exists()  # of a module that is trusted


def test_pipes_and_devices_among_the_images_are_left_out(good, tmp_path, refused, capfd):
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(good / "image.png", images)
    os.mkfifo(images / "pipe.png")
    (images / "device.png").symlink_to("/dev/zero")
    (images / "loop.png").symlink_to("loop.png")
    model = good / "runs/good"
    assert answer_of("predict", model, images) == 1  # for the broken link
    shown = capfd.readouterr()
    assert "images/image.png" in shown.out
    assert "left out: 2 no regular files" in shown.err
    for place in (images / "pipe.png", "/dev/zero"):
        refused("predict", model, place, about="is no regular file")


@pytest.mark.parametrize("verb", ["predict", "export", "report", "figures", "record"])
def test_outputs_that_cannot_be_written_are_a_line(verb, good, tmp_path, refused):
    runs = tmp_path / "runs"
    shutil.copytree(good / "runs/good", runs / "good")
    (tmp_path / "file").write_text("good")
    (tmp_path / "folder.safetensors").mkdir()
    words = {
        "predict": lambda to: ("predict", runs / "good", good / "image.png", "--output", to),
        "export": lambda to: ("export", runs / "good", "--output", to),
    }
    if verb in words:
        for place in ("file/x.safetensors", "folder.safetensors", "/proc/nope/x.safetensors"):
            refused(*words[verb](place), about="--output: cannot be written")
    elif verb == "record":
        place = f"paths.results={tmp_path}/file"
        refused("report", "smoke", "--record", place, "paths.root=none", about="cannot be")
    else:
        place = runs / "reports"
        place.write_text("good")
        refused(verb, runs, *(["--only", "training"] if verb == "figures" else []), about=verb)
        assert place.read_text() == "good"
        place.unlink()
        place.symlink_to("/proc/nope")
        refused(verb, runs, *(["--only", "training"] if verb == "figures" else []), about=verb)
    assert (tmp_path / "file").read_text() == "good"


@pytest.mark.parametrize("verb", ["export", "report", "figures"])
def test_a_limit_of_the_file_size_keeps_the_good_file(verb, good, tmp_path, refused):
    runs = tmp_path / "runs"
    shutil.copytree(good / "runs/good", runs / "good")
    words = {
        "export": ("export", runs / "good"),
        "report": ("report", runs),
        "figures": ("figures", runs, "--only", "training,curves"),
    }[verb]
    assert answer_of(*words) == 0
    before = contents(runs)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        refused(*words, about="File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    after = contents(runs)
    assert before.keys() == after.keys()
    assert all(len(after[path]) == len(content) for path, content in before.items())


def test_good_files_are_used(good, capfd):
    """The control: what is spoilt above works as it is."""
    run = good / "runs/good"
    answers = set()
    for name in ("last.ckpt", "model.safetensors", "model.pt2", "model.onnx"):
        assert answer_of("predict", run / name, good / "image.png", "--format", "csv") == 0
        answers.add(capfd.readouterr().out.rpartition(",")[0])
    assert len(answers) == 1
    where = (f"paths.run={good}/more", f"paths.image_cache={good}/image_cache")
    assert answer_of("train", *SMALL, "epochs=2", f"ckpt_path={run}/last.ckpt", *where) == 0
