"""Bad input: a clear line for every problem, a non-zero exit, no traceback, nothing left."""

import re
import shlex
from pathlib import Path

import pytest

from smm_lightning import cli
from smm_lightning.errors import UserError, did_you_mean, problem
from tests.test_train import ROOT, SMALL, run_program

CONF = ROOT / "conf"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "method=smn",
            r"method: unknown choice .got 'smn'.. Did you mean 'smm'\? Known: full, med",
        ),
        ("dataset=digit", r"dataset: unknown choice .got 'digit'.. Did you mean 'digits'\?"),
        ("backbone=resnet19", r"backbone: unknown choice .*Did you mean 'resnet1?8?"),
        ("mapping=imm", r"mapping: unknown choice .got 'imm'.*Known: flm, ilm, rlm"),
        ("method=smm,ful", r"method: unknown choice .got 'ful'.. Did you mean 'full'"),
        (
            "method.pach_size=4",
            r"method.pach_size: no such field .*Did you mean 'method.patch_size'",
        ),
        ("epoch=3", r"epoch: no such field .*Did you mean 'epochs'\?"),
        ("epochs", r"epochs: is no override .*Write field=value"),
        ("method=glob(x*)", r"method: the pattern matches no choice .*Known: full"),
        ("seed=1,0,1", r"seed: the sweep names a value twice .got '1'."),
        ("method=smm,full,smm", r"method: the sweep names a value twice .got 'smm'."),
    ],
)
def test_the_command_line_is_checked(argument, message):
    cli.register_resolvers()
    with pytest.raises(UserError, match=message):
        cli.check_overrides([argument], CONF, "train")


@pytest.mark.parametrize(
    ("choice", "extra"),
    [
        ("hydra/launcher=ray_gpus", "ray"),
        ("hydra/launcher=slurm", "slurm"),
        ("hydra/sweeper=optuna", "optuna"),
    ],
)
def test_a_plugin_that_is_not_installed_is_named(monkeypatch, choice, extra):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = rf"{choice.split('=')[0]}: needs a plugin .*pip install 'smm-lightning\[{extra}\]'"
    with pytest.raises(UserError, match=message):
        cli.check_overrides([choice], CONF, "train")


def test_all_problems_of_the_command_line_are_found_together():
    cli.register_resolvers()
    with pytest.raises(UserError) as error:
        cli.check_overrides(["method=x", "backbone=y", "-m", "seed=0,1"], CONF, "train")
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["method=full", "seed=0,1,2", "-m"],
        ["method=glob(smm*,exclude=*patch*)", "optimizer.pattern.lr=interval(0.1,0.2)", "-m"],
        ["method=pad", "dataset.native_size=32"],
        ["+trainer.limit_train_batches=2", "logger=null", "debug=fdr"],
        ["backbone=timm", "backbone.model=resnet10t"],
        ["hydra/launcher=basic", "hydra.verbose=true", "~callbacks"],
        ["experiment=cifar10_subset", "dataset.source.root=a folder/x", "method=smm"],
        ["trainer=ddp", "trainer.strategy=ddp_spawn", "optimizer.milestones=[2,5]"],
    ],
)
def test_good_command_lines_pass(arguments):
    cli.register_resolvers()
    cli.check_overrides(cli.without_nulls(arguments, CONF), CONF, "train")


def test_null_switches_a_group_off():
    given = ["logger=null", "debug=null", "callbacks=null", "dataset.train_images=null", "seed=1"]
    kept = ["logger=none", "callbacks=none", "dataset.train_images=null", "seed=1"]
    assert cli.without_nulls(given, CONF) == kept


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["methd=smm", "mapping=ilmm"], ["methd", "mapping"]),
        (
            ["method.patch_size=3", "dataset.batch_size=0"],
            ["method.patch_size", "dataset.batch_size"],
        ),
        (["trainer=gpu"], ["trainer.devices"]),
        (["ckpt_path=nowhere.ckpt"], ["ckpt_path"]),
        (["trainer.max_epochs=3"], ["trainer.max_epochs"]),
        (["+trainer.max_steps=10"], ["trainer.max_steps"]),
        (
            ["optimizer.pattern.lr=fast", "seed=one", "method.patch_size=big"],
            ["optimizer.pattern.lr", "seed", "method"],
        ),
    ],
)
def test_the_program_answers_in_lines(tmp_path, arguments, fields):
    done = run_program(*SMALL, *arguments, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert sorted(re.match(r"error: ([\w.]+): ", line)[1] for line in lines) == sorted(fields)
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("*.*"))


def test_a_sweep_goes_on_after_a_bad_job(tmp_path):
    done = run_program("-m", *SMALL, "epochs=1", "method.patch_size=3,8", cwd=tmp_path)
    assert done.returncode != 0
    assert "method.patch_size: must be a power of two (got 3)" in done.stdout + done.stderr
    assert len(list(tmp_path.rglob("result.json"))) == 1


def test_several_devices_in_a_sweep_are_refused_with_the_way_out(tmp_path):
    options = ("trainer.devices=2", "seed=0,1", "isolated=false")
    done = run_program("-m", *SMALL, *options, cwd=tmp_path)
    assert done.returncode != 0
    message = "trainer.devices: a sweep within one process runs its jobs on one device each (got 2)"
    assert f"{message}. Use isolated=true" in done.stdout + done.stderr


def test_help_lists_the_groups(tmp_path):
    done = run_program("--help", cwd=tmp_path)
    assert done.returncode == 0
    for group in ("dataset", "method", "backbone", "mapping", "trainer", "logger", "experiment"):
        assert f"{group}:" in done.stdout


def test_messages_name_the_value_and_the_cure():
    error = problem("a.b", "is wrong", 3, "Do better.")
    assert error.problems == ["a.b: is wrong (got 3). Do better."]
    from_worker = UserError(f"Caught UserError in worker.\nTraceback ...\nx.UserError: {error}")
    assert from_worker.problems == error.problems
    assert did_you_mean("zzz", ["b", "a"]) == "Known: a, b."


def test_multirun_script_lists_its_experiments(tmp_path):
    import subprocess

    done = subprocess.run(
        ["bash", str(ROOT / "multirun.sh")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "cifar10_subset: SMM against" in done.stdout


def shell_blocks(text):
    return re.findall(r"```bash\n(.*?)```", text, flags=re.S)


def readme_commands():
    """Every training command of the README."""
    lines = [
        line
        for block in shell_blocks((ROOT / "README.md").read_text())
        for line in block.splitlines()
    ]
    return [line.split("#")[0].strip() for line in lines if line.startswith("python train.py")]


def test_the_readme_has_commands():
    assert len(readme_commands()) >= 8


@pytest.mark.parametrize("command", readme_commands())
def test_commands_of_the_readme_run(tmp_path, command):
    """In a small variant: a tiny network, few batches, a made-up image folder."""
    from tests.dataset import miniatures
    from tests.dataset.test_dataset import write_images

    for split in ("train", "test"):
        write_images(tmp_path / "my_images", split, count=8)
    miniatures.make_coop("dtd", tmp_path / "data")
    arguments = shlex.split(command)[2:]
    given = {argument.split("=")[0] for argument in arguments}
    few = ["+trainer.limit_train_batches=2", "+trainer.limit_val_batches=1"]
    few += ["+trainer.limit_test_batches=1", "dataset.batch_size=4"]
    few += [] if "dataset" in given else ["dataset.train_images=20"]
    small = ["backbone=tiny", "trainer=cpu", *few, *([] if "epochs" in given else ["epochs=1"])]
    kept = [
        a for a in arguments if a.split("=")[0] not in ("backbone", "trainer", "backbone.model")
    ]
    done = run_program(*kept, *small, cwd=tmp_path, WANDB_MODE="offline", WANDB_API_KEY="")
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_targets_of_the_readme_exist():
    readme, makefile = ((ROOT / name).read_text() for name in ("README.md", "Makefile"))
    for target in re.findall(r"^make (\w+)", "\n".join(shell_blocks(readme)), flags=re.M):
        assert re.search(rf"^{target}:.*##", makefile, flags=re.M), target


def test_files_of_the_readme_exist():
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / name).exists(), name
    assert Path(ROOT / "docs/RESULTS.md").exists()
