"""Train from a script of one's own: compose a configuration, train it, read the result."""

import sys

from hydra import compose, initialize_config_dir

from smm_lightning.run.config import CONF
from smm_lightning.train import train

with initialize_config_dir(str(CONF), version_base="1.3"):
    config = compose("train", overrides=["epochs=2", *sys.argv[1:]])

result = train(config)  # the same run again is only read, an interrupted one goes on
print(f"{result['run_name']}: {100 * result['test/acc_last']:.1f} % on the test images")
