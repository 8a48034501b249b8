"""Every experiment expands to the runs that its header promises, without running any."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from smm_lightning.errors import UserError
from smm_lightning.report.__main__ import grid_of
from smm_lightning.report.tables import tables_of
from smm_lightning.run import identity
from smm_lightning.run.folder import State
from smm_lightning.run.grid import CONF, expand, paper_grids
from smm_lightning.run.identity import run_key, run_name
from smm_lightning.run.status import print_grids, print_states
from smm_lightning.training.assembly import build

GRIDS = sorted(
    path.stem
    for path in (CONF / "experiment").glob("*.yaml")
    if "mode: MULTIRUN" in path.read_text() and "optuna" not in path.read_text()
)
PAPER = {
    *("table1_resnet18", "table1_resnet50", "table2", "table3", "table3_vit", "table7"),
    *("table8", "table10", "table11", "table12", "table13", "table14", "figure4"),
}


def header(experiment):
    lines = (CONF / "experiment" / f"{experiment}.yaml").read_text().splitlines()
    return [line for line in lines if line.startswith("# ")][1:]


@pytest.mark.parametrize("experiment", GRIDS)
def test_header_and_runs_agree(experiment, expanded):
    jobs = expanded(experiment)
    text = "\n".join(header(experiment))
    promised = re.search(r"(\d+) runs", text)
    assert int(promised[1]) == len(jobs)
    for word in ("Command: ./multirun.sh " + experiment, "Expected", "Cost: "):
        assert word in text
    for job in jobs:
        assert job.run.path.name.endswith(job.run.key)


def test_all_grids_of_the_paper_are_there():
    assert set(GRIDS) >= PAPER | {"smoke"}


@pytest.mark.parametrize("experiment", ["table12", "table7", "table10", "table13", "figure4"])
def test_expansion_is_hydras_own(experiment, expanded):
    """Jobs, their order and their names, against composing a job as Hydra does it."""
    jobs = expanded(experiment)
    assert len({job.overrides for job in jobs}) == len(jobs)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for job in jobs[:: max(1, len(jobs) // 6)]:
            composed = compose("train", [f"experiment={experiment}", *job.overrides])
            assert composed == job.config
            assert run_name(composed) == job.run.path.name


@pytest.mark.parametrize(
    ("experiment", "numbers"),
    [
        ("table1_resnet18", 55),
        ("table1_resnet50", 55),
        ("table2", 55),
        ("table3", 44),
        ("table3_vit", 22),
        ("table7", 8),
        ("table8", 2),
        ("table10", 66),
        ("table11", 12),
        ("table12", 15),
        ("table13", 8),
        ("table14", 22),
        ("figure4", 0),
        ("smoke", 0),
    ],
)
def test_the_papers_cells_are_those_of_the_experiment(experiment, numbers, expanded, monkeypatch):
    monkeypatch.setattr("smm_lightning.run.grid.expand", lambda name, _: expanded(name))
    grid = grid_of(experiment, [])
    runs, layout = grid.runs, grid.layout
    numbers_of = [int(table.cells["paper"].count()) for table in tables_of(runs, layout)]
    per_metric = 1  # the tables of best epochs are there once a run is
    assert sum(numbers_of) == numbers * per_metric
    if layout.paper == "table1":  # the paper's own order of rows and columns
        (table,) = tables_of(runs, layout)
        order = (
            "cifar10 cifar100 svhn gtsrb flowers102 dtd ucf101 food101 sun397 eurosat oxfordpets"
        )
        assert table.rows == order.split()
        assert table.columns == ["pad", "narrow", "medium", "full", "smm"]


def test_tables_share_their_runs(expanded):
    """What Table 1 has run is not run again for Tables 3 and 10 and Figure 4."""
    table1 = {job.run.key for job in expanded("table1_resnet18")}
    shared = {
        name: {job.run.key for job in expanded(name)} & table1 for name in GRIDS if name in PAPER
    }
    assert len(shared["table3"]) == 2 * 11 * 3
    assert len(shared["table10"]) == 2 * 11 * 3
    assert len(shared["figure4"]) == 4 * 4 * 3
    table2 = {job.run.key for job in expanded("table2")}
    assert len({job.run.key for job in expanded("table3_vit")} & table2) == 2 * 11 * 3
    # The cell of Tables 7 and 8 with the rate that Table 2 has.
    for name in ("table7", "table8"):
        assert len({job.run.key for job in expanded(name)} & table2) == 3
    assert shared["table2"] == set()


@pytest.mark.parametrize("name", sorted(PAPER))
def test_every_grid_of_the_paper_decays_where_the_text_says(expanded, name):
    for job in expanded(name):
        config = job.config
        if name == "table13":  # which trains for 10 epochs
            assert config.epochs == 10
            assert "milestones" not in config.scheduler
        else:
            assert config.scheduler.milestones == "paper"
            assert build(config.scheduler, "scheduler").milestones == [100, 145]


def test_every_run_of_table_1_follows_the_paper(expanded):
    for job in expanded("table1_resnet50"):
        config = job.config
        assert config.epochs == 200
        assert config.dataset.use_val is False
        assert config.mapping.name == "ilm"
        assert config.backbone.name == "resnet50"


@pytest.mark.parametrize(
    "name",
    [
        "part",
        "part-${seed}",
        "part-${vars.x}",
        "part-${dataset.seed}",
        "${oc.select:vars.${seed},part}",
        "${oc.decode:part${vars.x}}",
    ],
)
def test_keys_of_a_grid_are_those_of_its_runs(name):
    """Runs that differ in the seed share the work of their keys, where nothing is made of it."""
    words = ["dataset=digits,eurosat_subset", "method=full,smm", "seed=0,1,7", "+vars.x='${seed}'"]
    jobs = expand("small_table1", [*words, f"dataset.name='{name}'"])
    assert len({job.run.key for job in jobs}) == 12
    assert all(job.run.key == run_key(job.config) for job in jobs)


def test_what_follows_the_seed_alone_is_resolved_once(monkeypatch):
    resolved = []
    monkeypatch.setattr(identity, "identity", lambda config: resolved.append(config.seed) or {})
    expand("small_table1", ["dataset=digits", "method=full,smm", "seed=0,1,7"])
    assert len(resolved) == 2
    resolved.clear()
    expand("small_table1", ["dataset=digits", "method=full,smm", "+vars.x='${seed}'"])
    assert len(resolved) == 6


def test_choices_that_are_composed_together_are_those_composed_alone():
    groups = {
        "backbone": ["efficientnet_lite0", "vit_b32", "timm"],
        "mapping": ["ilm", "linear"],
        "method": ["smm", "pad", "smm_patch1", "none"],
    }
    words = [f"{group}={','.join(choices)}" for group, choices in groups.items()]
    for job in expand("small_table1", ["dataset=digits", "seed=0", *words])[::5]:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            alone = compose("train", ["experiment=small_table1", *job.overrides])
        assert job.config == alone


def test_a_grid_without_a_run_is_said():
    with pytest.raises(UserError, match=r"^smoke: the sweep has no value .got 'method=glob"):
        expand("smoke", ["method=glob(zzz*)"])


def test_an_override_narrows_an_axis():
    jobs = expand("smoke", ["method=smm", "mapping=glob(*lm)", "seed=0,1", "hydra/launcher=basic"])
    assert len(jobs) == 2 * len(list(CONF.glob("mapping/*lm.yaml")))
    assert jobs[0].value("method.name") == "smm"
    assert jobs[0].value("method.no_such_field") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("smok",), r"experiment: unknown .got 'smok'.. Did you mean 'smoke'"),
        (("paper",), r"experiment: is no sweep"),
        (("search",), r"experiment: is a search, not a grid"),
        (("smoke", ["method=smmm"]), r"method: unknown choice"),
        (("smoke", ["threads=1,2"]), r"smoke: two jobs are the same run"),
    ],
)
def test_bad_grids_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        expand(*arguments)


def test_status_names_what_is_not_done(capsys):
    jobs = expand("smoke", ["method=smm"])
    found = [
        (jobs[0], State("done")),
        (jobs[1], State("failed", "a [b]: reason", 1.0)),
        (jobs[2], State("pending")),
    ]
    print_states(found, everything=False)
    text = capsys.readouterr().out
    assert text.startswith("3 runs: 1 done, 1 failed, 1 pending\n")
    assert jobs[1].run.path.name in text
    assert "a [b]: reason" in text
    assert jobs[2].run.path.name not in text


def test_grids_and_reports_load_no_torch():
    code = (
        "import sys; from smm_lightning.run.grid import expand; "
        "import smm_lightning.report.__main__; "
        "import smm_lightning.run.status; expand('smoke', ['method=smm']); "
        "print({'torch', 'lightning', 'wandb', 'timm'} & set(sys.modules))"
    )
    folder = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_all_tables_counts_a_shared_run_once(tmp_path, capsys):
    assert set(paper_grids()) == PAPER
    assert paper_grids()[:3] == ["table1_resnet18", "table1_resnet50", "table2"]
    assert paper_grids()[-1] == "figure4"
    words = ["method=smm,full", f"paths.root={tmp_path}"]
    grids = {
        "one": expand("smoke", [*words, "mapping=ilm,flm"]),
        "two": expand("smoke", [*words, "mapping=flm,rlm"]),
    }
    assert not print_grids(grids.items())
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [["one", "4", "0", "0"], ["two", "4", "2", "0"], ["in", "all", "6", "0"]]


def test_all_tables_runs_every_grid_and_goes_on_after_a_failed_one(tmp_path):
    """With a stand-in for Python that notes what it is asked."""
    (tmp_path / ".venv/bin").mkdir(parents=True)
    python = tmp_path / ".venv/bin/python"
    python.write_text(
        '#!/bin/bash\n[[ $1 == -c ]] && exec echo table2 table10 figure4\necho "$@" >> asked\n'
        '[[ "$*" == *"status all_tables"* ]] && exit 1\n'
        '[[ "$*" == *"--multirun experiment=table2 "* ]] && exit "${FAILS:-1}"\nexit 0\n'
    )
    python.chmod(0o755)
    shutil.copy(CONF.parent / "multirun.sh", tmp_path)

    def asked(**environment):
        (tmp_path / "asked").unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", str(tmp_path / "multirun.sh"), "all_tables", "seed=0"],
            capture_output=True,
            check=False,
            env={**os.environ, **environment},
        )
        lines = (tmp_path / "asked").read_text().splitlines()
        words = [line.removeprefix("-m smm_lightning ") for line in lines]
        return done.returncode, [w for w in words if not w.startswith("report")]

    status, words = asked()
    assert status == 1
    assert words[:3] == ["status all_tables seed=0", "benchmark table4", "benchmark table5"]
    order = [w for w in words if w.startswith("train")]
    grids = ("table2", "table10", "figure4")
    assert order == [f"train --multirun experiment={name} seed=0" for name in grids]
    status, words = asked(FAILS="130")  # a signal ends all of it
    assert status == 130
    assert words[-1] == "train --multirun experiment=table2 seed=0"
