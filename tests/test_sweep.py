"""Grids: what happens to a run stays there, and repeating the command does what is left."""

import json
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf

from smm_lightning.run import sweep
from tests import faults
from tests.programs import run_program, run_verb
from tests.resume.killing import differences, outcome
from tests.test_train import ROOT, SMALL

TINY = (*SMALL, "epochs=2", "threads=1", "dataset.batch_size=32")


def states(*arguments, cwd):
    done = run_verb("status", "--all", *arguments, cwd=cwd)
    rows = re.findall(r"^(\w+) +digits-\S+-s(\d+)-\w{8}( .*)?$", done.stdout, flags=re.M)
    return done, {int(seed): (state, rest) for state, seed, rest in rows}


def times_of_results(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}


def check_a_grid_with_faults(tmp_path, kinds, seeds, *options):
    """All others finish, the states name the failed ones, and the second call runs only those."""
    grid = ("experiment=smoke", "method=full", "mapping=rlm", f"seed={seeds}", *TINY, *options)
    first = run_program(*grid, *faults.overrides(kinds), "stall_minutes=0.1", cwd=tmp_path)
    assert first.returncode == 1, first.stdout + first.stderr
    done, found = states(*[g.replace("experiment=", "") for g in grid], cwd=tmp_path)
    assert done.returncode == 1
    expected = {"exception": "failed", "sleep": "failed", "sigkill": "killed"}
    expected["sigterm"] = "interrupted"
    wanted = {seed: expected[kinds[seed]] if seed in kinds else "done" for seed in found}
    assert {seed: state for seed, (state, _) in found.items()} == wanted
    assert len(found) == len(seeds.split(","))
    reasons = {"exception": "ArithmeticError: made to fail", "sleep": "no batch for 6 s"}
    reasons |= {"sigkill": "ended without a word", "sigterm": "exit status 143"}
    for seed, kind in kinds.items():
        assert reasons[kind] in found[seed][1]
    before = times_of_results(tmp_path)
    second = run_program(*grid, cwd=tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    after = times_of_results(tmp_path)
    assert len(after) == len(found)
    assert {name: after[name] for name in before} == before
    done, found = states(*[g.replace("experiment=", "") for g in grid], cwd=tmp_path)
    assert done.returncode == 0
    assert {state for state, _ in found.values()} == {"done"}


def test_a_grid_survives_what_happens_to_its_runs(tmp_path):
    check_a_grid_with_faults(tmp_path, {0: "sigkill", 1: "exception"}, "0,1,2")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "ray_cpus"])
def test_a_grid_of_twelve_survives_every_kind_of_fault(tmp_path, launcher):
    kinds = {0: "sigkill", 2: "sleep", 3: "exception", 5: "sigterm", 7: "sigkill"}
    seeds = ",".join(map(str, range(12)))
    check_a_grid_with_faults(tmp_path, kinds, seeds, f"hydra/launcher={launcher}")


def test_ray_and_the_basic_launcher_give_the_same_bits(tmp_path):
    pytest.importorskip("ray")
    grid = ("-m", *TINY, "method=smm", "seed=0")
    for launcher in ("basic", "ray_cpus"):
        options = (f"paths.root={launcher}", f"hydra/launcher={launcher}")
        done = run_program(*grid, *options, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    one, other = (outcome(tmp_path / root) for root in ("basic", "ray_cpus"))
    assert differences(one, other) == []


def test_a_sweep_that_is_asked_to_end_takes_its_job_along(tmp_path):
    options = [*TINY[:-1], "epochs=2000", "seed=0,1", f"paths.image_cache={tmp_path}/image_cache"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *options]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch "):
                break
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 143
    assert time.monotonic() - begin < 10
    (folder,) = (tmp_path / "runs").glob("digits-*")
    assert json.loads((folder / "state.json").read_text())["state"] == "interrupted"
    assert (folder / "last.ckpt").exists()
    assert not list(tmp_path.rglob("result.json"))


def test_a_job_ends_when_its_sweep_is_killed(tmp_path):
    options = [*TINY[:-1], "epochs=2000", "seed=0,1", f"paths.image_cache={tmp_path}/image_cache"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *options]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch "):
                break
        process.kill()
        process.communicate(timeout=30)  # returns when the job, which shares the pipe, has ended
    (folder,) = (tmp_path / "runs").glob("digits-*")
    assert json.loads((folder / "state.json").read_text())["state"] == "interrupted"


def test_the_number_of_threads_is_put_back():
    number = torch.get_num_threads()
    with sweep.threads(number + 1):
        assert torch.get_num_threads() == number + 1
    assert torch.get_num_threads() == number


def test_a_finished_grid_is_quick_to_repeat_and_a_forced_one_is_not_skipped(tmp_path):
    grid = ("-m", *TINY, "method=full", "seed=0")
    assert run_program(*grid, cwd=tmp_path).returncode == 0
    before = times_of_results(tmp_path)
    again = run_program(*grid, cwd=tmp_path)
    assert "finished before" in again.stdout
    assert times_of_results(tmp_path) == before
    assert run_program(*grid, "force=true", cwd=tmp_path).returncode == 0
    assert times_of_results(tmp_path) != before


def test_a_cluster_job_saves_goes_back_into_the_queue_and_ends_equal(tmp_path):
    """Submitit's local executor stands in for SLURM: SIGUSR2, its requeue, the second start."""
    pytest.importorskip("submitit")
    shared = (*TINY, "method=full", f"paths.image_cache={tmp_path}/image_cache")
    assert run_program(*shared, "paths.root=whole", cwd=tmp_path).returncode == 0
    submitit = ("hydra/launcher=submitit_local", "paths.root=queued")
    path = {"PYTHONPATH": str(ROOT)}  # for the fault
    fault = faults.overrides({0: "sigusr2"})
    done = run_program("-m", *shared, *submitit, *fault, cwd=tmp_path, **path)
    assert done.returncode == 0, done.stdout + done.stderr
    logs = "".join(path.read_text() for path in tmp_path.rglob(".submitit/*/*_log.out"))
    assert re.search(r"going on from queued/digits-\S+/last.ckpt", logs)
    assert "epoch 2/2" in logs
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "queued")) == []


def test_a_search_selects_on_val(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    search = ("experiment=search", "hydra.sweeper.n_trials=2", "dataset=digits", *TINY)
    done = run_program(*search, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert len(results) == 2
    assert all(result["best/selected_on"] == "val" for result in results)
    found = OmegaConf.load(tmp_path / "runs/optimization_results.yaml")
    best = max(results, key=lambda result: result["val/acc"])
    assert found.best_value == best["val/acc"]
    assert "optimizer.groups.pattern.lr" in found.best_params
