"""Programs as users start them: own arguments, folder, environment, output and exit status.

Importing torch and Lightning takes seconds. So each is forked from a process that has imported
them and done nothing else; what a test kills is a real process, see ``tests/resume/killing.py``.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(["tests.warm"])


def run_program(*arguments, cwd, **environment):
    """``python train.py <arguments>``."""
    return run_file(ROOT / "train.py", *arguments, cwd=cwd, **environment)


def run_verb(*arguments, cwd, **environment):
    """``python -m smm_lightning <verb> <arguments>``."""
    return run_file(ROOT / "smm_lightning/__main__.py", *arguments, cwd=cwd, **environment)


def run_file(program, *arguments, cwd, screen=None, **environment):
    """Run a Python file as ``__main__``, and wait for it.

    Args:
        program: the file.
        arguments: its command line.
        cwd: where it runs.
        screen: a file that its output goes to instead, or ``closed``.
        environment: what differs from ours.
    """
    env = {**os.environ, **environment}
    env.pop("WANDB_SERVICE", None)  # of wandb in this process, which has another folder
    given = [str(program), *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = WARM.Process(
            target=_main, args=(given, str(cwd), env, screen or str(out), str(err))
        )
        process.start()
        process.join()
        answers = (file.read_text() if file.exists() else "" for file in (out, err))
        return subprocess.CompletedProcess(given, process.exitcode, *answers)


def start_as_usual():
    """Processes of a program: readers of a killed run, forked by a server, would live for ever."""
    multiprocessing.set_start_method(None, force=True)


def _main(arguments, cwd, environment, out, err):
    start_as_usual()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    if out == "closed":
        os.close(1)
    else:
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    places = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [str(ROOT), *filter(None, places)]
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
