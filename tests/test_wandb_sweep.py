"""The command line that a wandb agent makes of the committed sweep file."""

import itertools
import os
import subprocess
import sys

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from tests.test_train import ROOT

SWEEP = yaml.safe_load((ROOT / "docs/examples/sweep.yaml").read_text())


def runs():
    """What a sweep of the method grid hands to its agents."""
    names = list(SWEEP["parameters"])
    values = [node.get("values", [node.get("value")]) for node in SWEEP["parameters"].values()]
    for chosen in itertools.product(*values):
        yield {name: {"value": value} for name, value in zip(names, chosen, strict=True)}


def command_of(run):
    """As wandb's agent: macros replaced by words."""
    macros = create_sweep_command_args({"args": run})
    macros |= {"env": ["/usr/bin/env"], "interpreter": [sys.executable], "program": ["train.py"]}
    words = []
    for word in SWEEP["command"]:
        words += macros[word[2:-1]] if word.startswith("${") else [word]
    return words


@pytest.mark.slow
def test_the_command_of_a_wandb_agent_runs_offline_as_it_is(tmp_path):
    assert len(list(runs())) == 6
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SWEEP_ID": "s1w2e3e4"}
    environment.pop("WANDB_SERVICE", None)
    done = subprocess.run(
        command_of(next(runs())),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "epoch 2/2" in done.stdout
    (_run,) = (tmp_path / "runs").glob("digits-full-*")
    logged = list(tmp_path.rglob("offline-run-*/*.wandb"))
    assert len(logged) == 1
    content = logged[0].read_bytes()
    assert b"test/acc" in content
    assert SWEEP["metric"]["name"].encode() in content
