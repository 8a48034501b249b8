"""``smm <verb>``: everything that this package does, as one command."""

import os
import sys
from importlib import import_module
from importlib.metadata import version

# What each verb is for, and where it lives: loaded only when it is asked for.
VERBS = {
    "train": ("train", "train a configuration, or sweep over many (-m)"),
    "status": ("run.status", "how the runs of a grid stand"),
    "report": ("report.__main__", "tables of a grid or a folder of runs, beside the paper's"),
    "figures": ("figures.__main__", "the paper's figures from trained runs"),
    "eval": ("inference.evaluate", "how good a trained classifier is on a split of any dataset"),
    "predict": ("inference.predict", "classes of image files"),
    "export": ("inference.export", "the trained prompt, or the whole classifier, as a file"),
    "prepare": (
        "run.prepare",
        "which datasets are here, and what is wrong with one's own images",
    ),
    "clean": ("run.clean", "what killed processes left, and image caches without a run"),
    "benchmark": ("benchmark.__main__", "training against the frozen network's limit"),
    "dashboard": ("training.dashboard", "a wandb workspace for grids"),
}


def main() -> None:
    """``smm`` and ``python -m smm_lightning``."""
    from smm_lightning.run.screen import kept_screen

    with kept_screen():
        _main()


def _main() -> None:
    verb, *arguments = sys.argv[1:] or ["--help"]
    if "LOCAL_RANK" in os.environ and verb not in VERBS:
        # Lightning starts further ranks of a training with arguments of its own, without the verb.
        run("train", sys.argv[1:])
    elif verb in ("--help", "-h"):
        print(usage())
    elif verb == "--version":
        print(f"smm-lightning {version('smm-lightning')}")
    elif verb in VERBS:
        run(verb, arguments)
    else:
        from smm_lightning.errors import did_you_mean

        print(
            f"error: smm: no such verb (got {verb!r}). {did_you_mean(verb, VERBS)}", file=sys.stderr
        )
        sys.exit(2)


def usage() -> str:
    """The verbs, a line each."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {purpose}" for verb, (_, purpose) in VERBS.items()]
    return "\n".join(["usage: smm <verb> ...   (smm <verb> --help, smm --version)", *lines])


def run(verb: str, arguments: list[str]) -> None:
    """Run a verb as a program of its own; a user's mistake ends in a line.

    Args:
        verb: of :data:`VERBS`.
        arguments: of its command line.
    """
    from smm_lightning.run.hydra_errors import errors_in_a_line

    # The name that its help shows; a training is started again by its real name, for other ranks.
    sys.argv = [sys.argv[0] if verb == "train" else f"smm {verb}", *arguments]
    with errors_in_a_line():
        module = import_module(f"smm_lightning.{VERBS[verb][0]}")
        sys.exit(module.main())


if __name__ == "__main__":
    main()
