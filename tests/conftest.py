import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from smm_lightning.run.grid import expand

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"


@pytest.fixture(scope="session")
def official():
    """Inputs, parameters and outputs of the published modules, by name."""
    with np.load(Path(__file__).parent / "data" / "official_vectors.npz") as archive:
        return {
            name: torch.from_numpy(value) if (value := archive[name]).shape else value.item()
            for name in archive.files
        }


@pytest.fixture(scope="session")
def good(tmp_path_factory):
    """A finished run with its exports, as ``runs/good``, and ``image.png``; see ``hostile``."""
    from tests.hostile import make_good

    return make_good(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="session")
def expanded():
    """``grid.expand`` without overrides; large grids take seconds, so each is expanded once."""
    return functools.cache(expand)


@pytest.fixture
def composed(tmp_path):
    """Compose a configuration whose runs lie in the test's own folder."""

    def compose_with(*overrides):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(
                "train",
                overrides=[
                    f"paths.root={tmp_path}/runs",
                    f"paths.image_cache={tmp_path}/image_cache",
                    *overrides,
                ],
            )

    return compose_with
