"""What stands underneath does not win: wandb's login and servers, loggers, homes, letters."""

import socket
import unicodedata
from pathlib import Path

import pytest
import wandb
from hydra import compose, initialize_config_dir
from lightning.pytorch.loggers import Logger

from smm_lightning import ReprogrammedClassifier
from smm_lightning import train as entry
from smm_lightning.dataset import ImageFolder
from smm_lightning.dataset.batch import checked_names
from smm_lightning.errors import UserError, of_storage
from smm_lightning.files import at, read_file
from smm_lightning.run.hydra_errors import exit_with
from smm_lightning.run.images import changed_images
from smm_lightning.training import logger as loggers
from tests.hostile import SMALL, answer_of
from tests.test_use import small_network, write_image

KEY = "0123456789" * 4


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's home, of whom wandb knows nothing."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE", "NETRC", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / ".config/wandb"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loggers, "_PATIENCE_S", 0.2)
    wandb.teardown()
    yield tmp_path
    wandb.teardown()


def login(home, url):
    """As ``wandb login --host``."""
    (home / ".config/wandb").mkdir(parents=True)
    (home / ".config/wandb/settings").write_text(f"[default]\nbase_url = {url}\n")
    host = url.rpartition("/")[2].partition(":")[0]
    (home / ".netrc").write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    (home / ".netrc").chmod(0o600)


@pytest.fixture
def server():
    """A port that takes calls and answers none."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


def test_a_login_on_a_server_of_ones_own_is_found(home, monkeypatch):
    login(home, "http://wandb.example.org")
    monkeypatch.setattr(loggers, "_unreachable", lambda url: "" if "example.org" in url else "no")
    assert loggers._mode("auto") == "online"
    (home / ".netrc").unlink()
    assert loggers._mode("auto") == "offline"


@pytest.mark.parametrize("kind", ["silent", "closed", "unknown"])
def test_a_server_that_cannot_be_reached_costs_no_run(kind, home, server, capsys):
    url = {"silent": server, "closed": "http://127.0.0.1:9", "unknown": "http://nope.invalid"}[kind]
    login(home, url)
    assert loggers._mode("auto") == "offline"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"wandb: {url} cannot be reached (")
    assert line.endswith("logging offline; `wandb sync <folder>` uploads it later")
    with pytest.raises(UserError, match=r"logger.wandb: its server cannot be reached"):
        loggers._mode("online")


def test_who_insists_by_the_environment_insists(home, server, monkeypatch):
    login(home, server)
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(UserError, match=r"logger.wandb: its server cannot be reached"):
        loggers._mode("auto")


@pytest.mark.parametrize(
    ("own", "mode"), [("offline", "offline"), ("disabled", "disabled"), ("dryrun", "offline")]
)
def test_wandbs_own_mode_is_kept(own, mode, home, monkeypatch):
    login(home, "http://wandb.example.org")
    monkeypatch.setenv("WANDB_MODE", own)
    assert loggers._mode("auto") == mode


class Failing(Logger):
    """Raises in one of its methods."""

    name = version = "failing"

    def __init__(self, method):
        super().__init__()
        self.method = method

    def log_metrics(self, *_, **__):
        self._do("log_metrics")

    def log_hyperparams(self, *_, **__):
        self._do("log_hyperparams")

    def save(self):
        self._do("save")

    def finalize(self, status):
        self._do("finalize")

    def after_save_checkpoint(self, checkpoint_callback):
        self._do("after_save_checkpoint")

    def _do(self, method):
        if method == self.method:
            raise ConnectionError("the server has gone")


@pytest.mark.parametrize("method", ["log_metrics", "save", "finalize", "after_save_checkpoint"])
def test_a_logger_that_fails_costs_no_run_and_says_so_once(method, tmp_path, capsys):
    options = [*SMALL, "epochs=2", f"paths.root={tmp_path}/runs"]
    options += [f"paths.image_cache={tmp_path}/image_cache", f"+logger.failing.method={method}"]
    options += ["+logger.failing._target_=tests.test_surroundings.Failing"]
    with initialize_config_dir(str(entry.CONF), version_base="1.3"):
        result = entry.train(compose("train", options))
    assert len(result["history"]) == 2
    said = capsys.readouterr().out.count("logger: Failing failed (ConnectionError: the server has")
    assert said == 1


def test_the_home_is_found_in_every_path(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for number, split in enumerate(("train", "test")):
        for name in ("a", "b"):
            for image in range(4):
                write_image(tmp_path / f"home/images/{split}/{name}/{number}{image}.png")
    small = ("backbone=tiny", "trainer=cpu", "dataset=imagefolder", "dataset.batch_size=4")
    small = (*small, "epochs=1", "threads=1", "dataset.source.root='~/images'", "logger=csv")
    places = ("paths.root='~/runs'", "paths.image_cache='~/cache'", "paths.results='~/results'")
    assert answer_of("train", "-m", *small, *places, "seed=0") == 0
    (one,) = (tmp_path / "home/runs").glob("*/last.ckpt")
    run = ("paths.run='~/other'", "epochs=2", f"ckpt_path='~/runs/{one.parent.name}/last.ckpt'")
    assert answer_of("train", *small, *places, *run) == 0
    there = {path.name for path in (tmp_path / "home").iterdir()}
    assert {name for name in there if name[0] != "."} == {*("images", "runs", "cache", "other")}
    assert {path.name for path in tmp_path.iterdir()} == {"home"}
    assert answer_of("report", "~/runs") == 0
    assert at("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    assert answer_of("train", "paths.root=~/runs") == 2
    assert "Quote the ~: \"paths.root='~/runs'\"." in capfd.readouterr().err


def test_names_that_look_the_same_are_named(tmp_path):
    one, other = (unicodedata.normalize(form, "caf\xe9") for form in ("NFC", "NFD"))
    with pytest.raises(UserError, match=r"the same but for the form of their Unicode characters"):
        checked_names([one, other])
    with pytest.raises(UserError, match=r"class_names: must hold no control characters"):
        checked_names(["a", "b\x1b[2J"])
    images = {"train": {"images": 1, "digest": "0"}}
    then, now = ({"class_names": [name], "images": images} for name in (one, other))
    assert "only in the form of their Unicode characters" in changed_images(then, now)
    assert "Unicode" not in changed_images(then, {"class_names": ["x"], "images": images})
    for split, name in (("train", one), ("train", other), ("test", one)):
        write_image(tmp_path / split / name / "0.png")
    with pytest.raises(UserError, match=r"the same but for the form"):
        ImageFolder(str(tmp_path)).load()
    with pytest.raises(UserError, match=r"the same but for the form"):
        ReprogrammedClassifier.wrap(small_network(), [one, other], image_size=32)


def test_escape_codes_of_a_message_move_no_cursor(capsys):
    with pytest.raises(SystemExit):
        exit_with(UserError("\x1b[2Ja\u202e: is wrong."))
    assert capsys.readouterr().err == "error: \\x1b[2Ja\\u202e: is wrong.\n"


def test_full_disks_are_lines():
    error = of_storage(OSError(28, "No space left on device", "/x"))
    assert str(error).startswith("/x: cannot be read or written (No space left on device).")
    assert of_storage(ValueError()) is None
    assert of_storage(FileNotFoundError(2, "No such file")) is None


def test_what_is_no_file_is_not_read(tmp_path):
    for place in ("/dev/zero", tmp_path):
        with pytest.raises(OSError, match=r"regular file|directory"):
            read_file(Path(place))
    (tmp_path / "large").write_bytes(b"0" * 10)
    assert read_file(tmp_path / "large", 10) == b"0" * 10
    with pytest.raises(OSError, match=r"too large"):
        read_file(tmp_path / "large", 9)
