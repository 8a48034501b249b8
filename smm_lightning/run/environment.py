"""Of what a result was made: versions, machine, commit."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("smm-lightning", "torch", "torchvision", "lightning", "hydra-core", "timm", "numpy")


def environment() -> dict[str, Any]:
    """Versions, machine and commit."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "versions": {name: version(name) for name in _PACKAGES},
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _git(*arguments: str) -> str | None:
    """Output of git in the folder of this code; ``None`` without git or outside a checkout."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed program, fixed arguments
            ["git", *arguments],  # noqa: S607 - git has no fixed place
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
