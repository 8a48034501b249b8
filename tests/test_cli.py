"""Bad input: a clear line for every problem, a non-zero exit, no traceback, nothing left."""

import re
import shlex
import subprocess

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException

from smm_lightning.errors import UserError, did_you_mean, problem
from smm_lightning.run.config import composed, started_as
from smm_lightning.run.hydra_errors import explain
from smm_lightning.training.assembly import build_all
from tests.programs import run_file, run_program, run_verb
from tests.test_train import ROOT, SMALL

CONF = ROOT / "conf"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["method=smn"],
            r"method: unknown choice .got 'smn'.. Did you mean 'smm'\? Known: full, med",
        ),
        (["dataset=digit"], r"dataset: unknown choice .got 'digit'.. Did you mean 'digits'\?"),
        (["backbone=resnet19"], r"backbone: unknown choice .*Did you mean 'resnet1?8?"),
        (["mapping=imm"], r"mapping: unknown choice .got 'imm'.*'ilm'.*Known: blm, "),
        (["experiment=smok"], r"experiment: unknown choice .got 'smok'.. Did you mean 'smoke'"),
        (
            ["method.pach_size=4"],
            r"method.pach_size: no such field .*Did you mean 'method.patch_size'",
        ),
        (["adapter.rank=4"], r"adapter.rank: no such field .* A field of adapter=lora"),
        (["method=full", "method.patch_size=4"], r"method.patch_size: .* A field of method=smm, "),
        (["epoch=3"], r"epoch: no such field .got 'epoch=3'.. Did you mean 'epochs'\?"),
        (["methd=smm"], r"methd: no such field .*Did you mean 'method'\?"),
        (
            ["backbone=timm", "backbone.modl=x"],
            r"backbone.modl: no such field .*Did you mean 'backbone.model'",
        ),
        (["zzzzzz=1"], r"zzzzzz: no such field .*--cfg job` prints all fields."),
        (["epochs"], r"epochs: is no override .*Write field=value"),
        (["epochs=[1"], r"epochs=.1: is no override"),
        (["logger=null"], r"logger: a group needs a choice .got 'null'.. Use logger=none."),
        (["backbone=null"], r"backbone: a group needs a choice .*Leave backbone out"),
        (["seed=0,1"], r"configuration: Ambiguous value for argument 'seed=0,1' -m sweeps over"),
        (
            ["+experiment=smoke"],
            r"configuration: Multiple values for experiment.*leave out the .\.",
        ),
        (["~nope"], r"configuration: Could not delete from config. 'nope' does not exist."),
    ],
)
def test_what_hydra_refuses_is_a_line_with_a_hint(arguments, message):
    with pytest.raises((HydraException, ValueError)) as error:
        composed(arguments)
    (line,) = explain(error.value, arguments).problems
    assert re.match(message, line), line


def test_a_logger_that_is_not_installed_is_named(composed, monkeypatch):
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        missing = ModuleNotFoundRequirement()
        monkeypatch.setattr(f"lightning.fabric.loggers.tensorboard.{name}", missing)
    with pytest.raises(UserError, match=r"logger.tensorboard: needs .*lightning\[tensorboard\]"):
        build_all(composed("logger=tensorboard").logger, "logger")


class ModuleNotFoundRequirement:
    def __bool__(self):
        return False

    def __str__(self):
        return "Requirement 'tensorboard' not met."


@pytest.mark.parametrize(
    ("file", "extra"),
    [
        ("hydra/launcher/ray", "ray"),
        ("hydra/launcher/submitit_slurm", "slurm"),
        ("hydra/sweeper/optuna", "optuna"),
    ],
)
def test_a_plugin_that_is_not_installed_is_named(file, extra):
    error = MissingConfigException("", missing_cfg_file=file, options=["basic"])
    (line,) = explain(error, []).problems
    assert re.match(rf"{file.rpartition('/')[0]}: needs a plugin .*smm-lightning\[{extra}\]", line)


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("train.py", "python train.py"),
        ("/a b/train.py", "python '/a b/train.py'"),
        ("/x/bin/smm", "smm train"),
        ("/x/smm_lightning/__main__.py", "python -m smm_lightning train"),
    ],
)
def test_hints_name_the_command_as_it_was_started(program, shown, monkeypatch):
    monkeypatch.setattr("sys.argv", [program])
    assert started_as() == shown
    with pytest.raises(HydraException) as error:
        composed(["zzzzzz=1"])
    assert f"`{shown} --cfg job`" in explain(error.value, ["zzzzzz=1"]).problems[0]


def test_errors_of_the_program_itself_stay_what_they_are():
    assert explain(ValueError("a bug"), []) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["method=pad", "dataset.native_size=32"],
        ["+trainer.limit_train_batches=2", "logger=none", "debug=fdr"],
        ["backbone=timm", "backbone.model=resnet10t"],
        ["hydra/launcher=basic", "hydra.verbose=true", "~callbacks"],
        ["experiment=smoke", "dataset=imagefolder", "dataset.source.root=a folder/x", "method=smm"],
        ["trainer=ddp", "trainer.strategy=ddp_spawn", "scheduler.milestones=[2,5]"],
        ["+vars.mine=3"],
    ],
)
def test_good_command_lines_compose(arguments):
    composed(arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("seed=1,0,1",), "error: seed: the sweep names a value twice (got '1')."),
        (("method=smm,full,smm",), "error: method: the sweep names a value twice (got 'smm')."),
        (("method=glob(zzz*)",), "error: method: the sweep has no value (got 'method=glob(zzz*)')"),
        (
            ("recipe=[paper,steady]",),
            "error: recipe: takes one choice (got 'recipe=[paper,steady]')",
        ),
    ],
)
def test_sweeps_that_run_nothing_or_a_run_twice_are_refused(arguments, message, tmp_path):
    refused(run_program("-m", *SMALL, *arguments, cwd=tmp_path), message, tmp_path)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "method=[full,narrow]",
            "error: method: takes one choice (got 'method=[full,narrow]'). A sweep over them: -m ",
        ),
        ("~protocol", "error: protocol.val_fraction: is missing, and other fields are made of it."),
    ],
)
def test_several_choices_of_a_group_and_none_are_refused(word, message, tmp_path):
    refused(run_program(*SMALL, word, cwd=tmp_path), message, tmp_path)


def refused(done, message, folder):
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert not list(folder.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--cfg", "job"), "fused_attention: null"),
        (("--cfg", "job", "--resolve"), "max_epochs: 5"),
        (("--cfg", "job", "--package", "scheduler"), "milestones: ${recipe.schedule}"),
        (("--info", "defaults"), "| method/smm "),
        (("--info", "searchpath"), "| main"),
    ],
)
def test_hydras_own_flags_work(flags, expected, tmp_path):
    done = run_program(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("method=sm", "method=smm_patch4"), ("optimizer.gr", "optimizer.groups.")],
)
def test_the_shell_completes_choices_and_fields(typed, offered, tmp_path):
    done = run_program("-sc", "install=bash", cwd=tmp_path)
    assert "hydra_bash_completion" in done.stdout
    line = f"python train.py {typed}"
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = run_program("-sc", "query=bash", cwd=tmp_path, **asked)
    assert offered in done.stdout, done.stderr


def test_a_dataset_from_outside_is_one_file(tmp_path):
    """Facts and all, for training and for ``prepare``."""
    from tests.dataset import miniatures

    miniatures.make_coop("dtd", tmp_path / "data")
    text = (ROOT / "conf/dataset/dtd.yaml").read_text()
    mine = text.replace("name: dtd", "name: mine").replace("batch_size: 64", "batch_size: 4")
    (tmp_path / "own/dataset").mkdir(parents=True)
    (tmp_path / "own/dataset/mine.yaml").write_text(mine)
    options = ("--config-dir", "own", "dataset=mine", "backbone=tiny", "trainer=cpu", "epochs=1")
    done = run_program(*options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("runs/mine-smm-tiny-ilm-s0-*/result.json"))
    done = run_verb("prepare", "own/dataset/mine.yaml", cwd=tmp_path)
    assert "mine: train 12, in Table 6 2820" in done.stdout, done.stderr


def test_the_settings_of_one_machine_are_in_a_file_that_git_ignores(composed_with_local):
    cfg = composed_with_local("# @package _global_\npaths:\n  data: /fast/disk\n")
    assert cfg.paths.data == "/fast/disk"


@pytest.fixture
def composed_with_local(tmp_path):
    """Compose with a copy of ``conf`` that has a ``local/default.yaml``."""
    import shutil

    def compose_with(text):
        shutil.copytree(CONF, tmp_path / "conf")
        (tmp_path / "conf/local").mkdir()
        (tmp_path / "conf/local/default.yaml").write_text(text)
        with initialize_config_dir(str(tmp_path / "conf"), version_base="1.3"):
            return compose("train")

    return compose_with


def test_the_example_of_a_script_of_ones_own_runs(tmp_path):
    script = ROOT / "docs/examples/train_from_python.py"
    for expected in ("epoch 2/2", "was finished before"):
        done = run_file(script, *SMALL, "paths.root=mine", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    assert re.search(r"digits-smm-tiny-ilm-s0-\w{8}: \d+.\d % on the test images", done.stdout)


def test_sweeps_of_every_form_run(tmp_path):
    axes = ("method=glob(f*)", "seed=range(1,2)", "mapping=choice(rlm,flm)")
    done = run_program("-m", *SMALL, *axes, "epochs=1", "~logger", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    names = sorted(path.parent.name[:-9] for path in tmp_path.rglob("result.json"))
    assert names == [f"digits-full-tiny-{m}-s{s}" for m in ("flm", "rlm") for s in (1,)]


def test_a_folder_of_ones_own_adds_choices_and_configurations(tmp_path):
    for path, text in {
        "own/method/mine.yaml": "defaults:\n  - full\nname: mine\nframe: 0.25\n",
        "own/special.yaml": "defaults:\n  - train\n  - _self_\nepochs: 2\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for where in (["--config-dir", "own"], [f"hydra.searchpath=[file://{tmp_path}/own]"]):
        done = run_program(*where, "method=mine", "--cfg", "job", cwd=tmp_path)
        assert "name: mine" in done.stdout, done.stderr
    arguments = ["--config-dir", "own", "--config-name", "special", "--cfg", "job", "--resolve"]
    done = run_program(*arguments, cwd=tmp_path)
    assert "max_epochs: 2" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["mapping=ilmm"], ["mapping"]),
        (["methd=smm"], ["methd"]),
        (
            ["method.patch_size=3", "dataset.batch_size=0"],
            ["method.patch_size", "dataset.batch_size"],
        ),
        (["trainer=gpu"], ["trainer"]),
        (["ckpt_path=nowhere.ckpt"], ["ckpt_path"]),
        (["trainer.max_epochs=3"], ["trainer.max_epochs"]),
        (["+trainer.max_steps=10"], ["trainer.max_steps"]),
        (
            ["optimizer.groups.pattern.lr=fast", "seed=one", "method.patch_size=big"],
            ["optimizer.groups.pattern.lr", "seed", "method.patch_size"],
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
    assert did_you_mean("zzz", []) == ""


def test_multirun_script_lists_its_experiments(tmp_path):
    done = subprocess.run(
        ["bash", str(ROOT / "multirun.sh")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "small_table1: Table 1 in small" in done.stdout


def shell_blocks(text):
    return re.findall(r"```bash\n(.*?)```", text, flags=re.S)


def readme_commands():
    """Every training command of the README's blocks and of the guide."""
    lines = [
        line
        for name in ("README.md", "docs/GUIDE.md")
        for block in shell_blocks((ROOT / name).read_text())
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
    network = ["backbone=tiny"]
    if "adapter=lora" in arguments:  # which asks for a transformer
        network = ["backbone=timm", "backbone.model=test_vit", "backbone.pretrained=false"]
    small = [*network, "trainer=cpu", *few, *([] if "epochs" in given else ["epochs=1"])]
    kept = [
        a for a in arguments if a.split("=")[0] not in ("backbone", "trainer", "backbone.model")
    ]
    if "-m" in kept:  # two jobs are a sweep
        kept = [re.sub(r"^(seed=\d+),.*", r"\1", argument) for argument in kept]
    done = run_program(*kept, *small, cwd=tmp_path, WANDB_MODE="offline", WANDB_API_KEY="")
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_targets_of_the_readme_exist():
    readme, makefile = ((ROOT / name).read_text() for name in ("README.md", "Makefile"))
    for target in re.findall(r"^make (\w+)", "\n".join(shell_blocks(readme)), flags=re.M):
        assert re.search(rf"^{target}:.*##", makefile, flags=re.M), target
