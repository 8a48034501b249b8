"""Results as runs leave them, with numbers that a test chooses."""

import json

from smm_lightning.report.runs import Run, flattened

COUNTS = {"train images": 100, "test images": 50, "train checksum": "d" * 16}


def result(dataset="cifar10", method="smm", seed=0, accuracy=0.5, **changes):
    """The content of a result file; ``changes`` are dotted fields with ``__`` for the dots."""
    config = {
        "seed": seed,
        "epochs": 200,
        "dataset": {"name": dataset, "seed": seed},
        "method": {"name": method},
        "backbone": {"name": "resnet18"},
        "mapping": {"name": "ilm"},
        "paths": {"run": f"runs/{dataset}-{method}-{seed}"},
    }
    content = {
        "run_key": f"{dataset}{method}{seed}",
        "seed": seed,
        "test/acc_last": accuracy,
        "test/acc_best_test": accuracy + 0.01,
        "train/acc_last": accuracy + 0.1,
        "best/selected_on": "test",
        "device": "cpu",
        "precision": "32-true",
        "data/images": {"train": 100, "test": 50},
        "card": {"protocol": "published", "test set": "watched every epoch", **COUNTS},
        "history": [{"epoch": 199}],
        "environment": {"versions": {"torch": "2.15.0"}, "git_commit": "a" * 40},
        "config": config,
    }
    for name, value in changes.items():
        *path, leaf = name.split("__")
        node = content
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return content


def run(folder, content):
    return Run(folder, dict(flattened(content["config"])), content)


def write(folder, content):
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(content))
