"""The package as others get it: one command, and a wheel that trains in an empty folder."""

import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version

import pytest

from smm_lightning.__main__ import VERBS
from tests.programs import run_verb
from tests.test_train import ROOT, SMALL


def smm(*arguments, cwd, place=ROOT, **environment):
    """``python -m smm_lightning`` with the package that lies in ``place``."""
    if place == ROOT:
        return run_verb(*arguments, cwd=cwd, **environment)
    command = [sys.executable, "-m", "smm_lightning", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(place), **environment}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=env, check=False)


def built(kind, source, folder):
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A wheel of the checkout, and one of the source distribution."""
    root = tmp_path_factory.mktemp("package")
    with tarfile.open(built("sdist", ROOT, root / "sdist")) as archive:
        archive.extractall(root / "unpacked", filter="data")
    (source,) = (root / "unpacked").iterdir()
    return built("wheel", ROOT, root / "direct"), built("wheel", source, root / "dist")


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """A folder that holds what the wheel installs."""
    root = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheels[1]) as archive:
        archive.extractall(root)
    return root


def test_a_source_distribution_makes_the_same_wheel(wheels):
    contents = []
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            infos = archive.infolist()
            contents.append({i.filename: i.CRC for i in infos if "dist-info" not in i.filename})
    assert contents[0] == contents[1]
    assert "smm_lightning/conf/train.yaml" in contents[0]


def test_a_wheel_trains_reports_and_predicts_in_an_empty_folder(installed, tmp_path):
    where = {"cwd": tmp_path, "place": installed}
    done = smm("train", *SMALL, "debug=limit", **where)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "runs/debug").glob("digits-*")
    done = smm("report", "runs/debug", **where)
    assert "Test accuracy, last epoch" in done.stdout, done.stderr
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    done = smm("predict", run, "photo.png", **where)
    assert done.stdout.startswith("photo.png"), done.stderr
    assert done.returncode == 0
    done = smm("train", "-m", *SMALL, "debug=limit", "seed=1", "epochs=1", **where)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_place_reads_its_own_configuration(installed, tmp_path):
    """A wheel its own part, a checkout the folder beside its package."""
    code = "from smm_lightning.run.config import CONF; print(CONF)"
    for place, conf in ((installed, installed / "smm_lightning/conf"), (ROOT, ROOT / "conf")):
        env = {**os.environ, "PYTHONPATH": str(place)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env=env, check=False
        )
        assert done.stdout.strip() == str(conf), done.stderr


def test_the_paths_of_one_machine_stay_there(tmp_path):
    import shutil

    source = tmp_path / "source"
    for name in ("smm_lightning", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "conf/local").mkdir(exist_ok=True)
    (source / "conf/local/default.yaml").write_text("paths: {root: /home/me}")
    with zipfile.ZipFile(built("wheel", source, tmp_path / "dist")) as archive:
        names = archive.namelist()
    assert "smm_lightning/conf/train.yaml" in names
    assert not [name for name in names if "local" in name]


def test_a_second_checkout_reads_its_own_configuration(tmp_path):
    import shutil

    second = tmp_path / "second"
    for name in ("smm_lightning", "conf"):
        shutil.copytree(ROOT / name, second / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", second)
    text = (second / "conf/train.yaml").read_text()
    (second / "conf/train.yaml").write_text(text.replace("epochs: 5 ", "epochs: 1 "))
    command = [sys.executable, str(second / "train.py")]
    work = tmp_path / "work"
    work.mkdir()
    for arguments in (SMALL, ("-m", *SMALL, "seed=1")):  # jobs are processes of their own
        done = subprocess.run(
            [*command, *arguments], cwd=work, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "epoch 1/1" in done.stdout
        assert "1/5" not in done.stdout


def test_the_command_says_what_it_can_do(tmp_path):
    done = smm(cwd=tmp_path)
    assert done.returncode == 0
    for verb in VERBS:
        assert f"  {verb} " in done.stdout
    assert smm("--version", cwd=tmp_path).stdout == f"smm-lightning {version('smm-lightning')}\n"
    done = smm("trian", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: smm: no such verb (got 'trian'). Did you mean 'train'?")


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_every_verb_has_help_under_its_own_name(verb, tmp_path):
    done = smm(verb, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: smm {verb} ")


def test_a_system_without_flock_and_posix_signals_trains(tmp_path):
    """As Windows is; the run is also seen as done afterwards."""
    code = (
        "import signal, sys; sys.modules['fcntl'] = None; "
        "[delattr(signal, n) for n in ('SIGUSR2', 'SIGALRM', 'setitimer', 'ITIMER_REAL')]; "
        "import filelock; filelock.FileLock = filelock.SoftFileLock; "
        "from smm_lightning.__main__ import main; main()"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, "train", *SMALL, "epochs=1"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 1


def test_further_ranks_of_a_training_find_their_way(tmp_path):
    """Lightning starts them without the verb."""
    ddp = ("trainer=ddp", "trainer.accelerator=cpu", "epochs=1", "method=full")
    done = smm("train", *SMALL, *ddp, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("epoch 1/1") == 1
