"""What Hydra and OmegaConf refuse, said in one line with a hint."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import yaml
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError
from yaml import YAMLError

from smm_lightning.errors import (
    RunEndedError,
    UserError,
    closest,
    did_you_mean,
    of_storage,
    problem,
)
from smm_lightning.run.config import CONF, composed, started_as
from smm_lightning.text import printable

USAGE_ERROR = 2
_TRACEBACKS = "HYDRA_FULL_ERROR"  # without it Hydra prints errors itself and ends the program
# Words that Hydra's own message of a mistake ends with, and what helps.
_HINTS = (
    ("Ambiguous value", "-m sweeps over several values; key=[a,b] is a list."),
    ("Multiple values for", "It is chosen by default: leave out the +."),
)
# Choices that come with a plugin: their first word, and our extra that brings it.
_PLUGINS = {"ray": "ray", "submitit": "slurm", "optuna": "optuna"}
_EXPLAINED = (UserError, HydraException, OmegaConfBaseException, ValueError, YAMLError, OSError)
_OVERRIDE = "Write field=value or group=choice; quote values with special characters."
_SHOWN = 3  # choices in a hint
_NOTHING_CHOSEN = "Config group override must be a string or a list"


@contextmanager
def errors_in_a_line() -> Iterator[None]:
    """A mistake of the user ends the program with a line for every problem, without a traceback.

    A user who sets ``HYDRA_FULL_ERROR=1`` gets the traceback.
    """
    before = os.environ.get(_TRACEBACKS)
    with_traceback = before == "1"
    os.environ[_TRACEBACKS] = "1"
    try:
        yield
    except RunEndedError as error:  # the other runs of the sweep went on
        exit_with(UserError(str(error)), status=1)
    except _EXPLAINED as error:
        explained = None if with_traceback else explain(error, sys.argv[1:])
        if explained is None:
            raise
        exit_with(explained)
    finally:  # another program that is started from here chooses for itself
        os.environ.pop(_TRACEBACKS)
        os.environ.update({} if before is None else {_TRACEBACKS: before})


def exit_with(error: UserError, status: int = USAGE_ERROR) -> NoReturn:
    """Print every problem on a line of its own and leave."""
    for line in error.problems:
        print(f"error: {printable(line)}", file=sys.stderr)
    sys.exit(status)


def explain(error: Exception, arguments: Sequence[str]) -> UserError | None:
    """The same as a user's error; ``None`` for what is none.

    Args:
        error: of Hydra, OmegaConf or this package.
        arguments: of the command line.
    """
    field = getattr(error.__cause__, "full_key", None)
    match error:
        case UserError():
            explained: UserError | None = error
        case MissingConfigException(missing_cfg_file=str(), options=_):
            explained = _unknown_choice(error)
        case OverrideParseException():
            name, _, value = str(error.override).partition("=")
            hint = f"Quote the ~: \"{name}='{value}'\"." if value.startswith("~") else _OVERRIDE
            explained = problem(error.override, "is no override", error.override, hint)
        case ConfigCompositionException() if field and isinstance(error.__cause__, ValidationError):
            explained = problem(str(field), str(error.__cause__.msg).splitlines()[0])
        case ConfigCompositionException() if field:
            explained = _unknown_field(str(field), arguments)
        case yaml.MarkedYAMLError(problem_mark=mark) if mark is not None:
            what = f"is no YAML in line {mark.line + 1} ({error.problem})"
            explained = problem(str(mark.name), what)
        case UnicodeDecodeError():
            explained = problem("configuration", f"a file is no text in UTF-8 ({error})")
        case OSError() if not isinstance(error, HydraException):  # a missing choice is one, too
            explained = of_storage(error)
        case HydraException() | OmegaConfBaseException():
            explained = _first_lines(error)
        case _:
            unchosen = str(error).startswith(_NOTHING_CHOSEN)
            explained = _no_choice(arguments) if unchosen else None
    return explained


def _unknown_choice(error: MissingConfigException) -> UserError:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    there = (path.stem for path in sorted((CONF / group).glob("*.yaml")))
    options = [str(option) for option in error.options or there]
    extra = _PLUGINS.get(re.split(r"\W|_", choice)[0])
    if group.startswith("hydra/") and extra and choice not in options:
        hint = f"Install it: pip install 'smm-lightning[{extra}]'."
        return problem(group, "needs a plugin", choice, hint)
    if not group:
        return problem("--config-name", "no such configuration", choice)
    return problem(group, "unknown choice", choice, did_you_mean(choice, options))


def _unknown_field(field: str, arguments: Sequence[str]) -> UserError:
    given = next((word for word in arguments if word.lstrip("+~").startswith(field)), field)
    if field.startswith("vars."):  # open to any name
        hint = f"New ones are written with a plus: +{given}."
    else:
        hint = _of_other_choices(field) or closest(field, _known_names(arguments))
    hint = hint or f"`{started_as()} --cfg job` prints all fields."
    return problem(field, "no such field", given, hint)


def _of_other_choices(field: str) -> str:
    """A hint for a field that the choice of its group does not have, and others have."""
    group, _, name = field.rpartition(".")
    files = sorted((CONF / group).glob("*.yaml")) if group else []
    nodes: dict[str, Any] = {f"{group}={file.stem}": OmegaConf.load(file) for file in files}
    having = [choice for choice, node in nodes.items() if name in node.get(group, node)]
    return f"A field of {', '.join(having[:_SHOWN])}." if having else ""


def _known_names(arguments: Sequence[str]) -> list[str]:
    """All fields of the configuration with the groups that were chosen, and all groups."""
    groups = {str(path.relative_to(CONF)) for path in CONF.rglob("*") if path.is_dir()}
    chosen = [a for a in arguments if a.partition("=")[0] in groups]
    for overrides in (chosen, []):  # one of the choices may itself be wrong
        try:
            return [*_names(composed(overrides)), *groups]
        except HydraException:
            continue
    return sorted(groups)


def _names(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all nodes."""
    if isinstance(config, DictConfig) and not config._is_none() and not config._is_missing():
        for key in map(str, config):
            yield f"{prefix}{key}"
            value = None if OmegaConf.is_missing(config, key) else config._get_node(key)
            yield from _names(value, f"{prefix}{key}.")


def _no_choice(arguments: Sequence[str]) -> UserError:
    """``group=null``, of which Hydra does not say the group."""
    nameless = next((a for a in arguments if a.startswith("=")), None)
    if nameless is not None:
        return problem(nameless, "is no override", nameless, _OVERRIDE)
    pairs = [a.partition("=")[::2] for a in arguments]
    chosen = [pair for pair in pairs if (CONF / pair[0]).is_dir() and not pair[1][:1].isalpha()]
    nulls = [pair for pair in pairs if (CONF / pair[0]).is_dir() and pair[1] == "null"]
    group, choice = next(iter(nulls + chosen), ("configuration", "null"))
    none = (CONF / group / "none.yaml").is_file()
    hint = f"Use {group}=none." if none else f"Leave {group} out, or take another choice."
    return problem(group, "a group needs a choice", choice, hint)


def _first_lines(error: Exception) -> UserError:
    text = " ".join(str(error).split())
    left_out = re.match(r"Interpolation key '([^']+)' not found", text)
    if left_out:
        return problem(left_out[1], "is missing, and other fields are made of it")
    hint = next((hint for words, hint in _HINTS if words in text), "")
    short = re.split(r" (?:1\. To use it as a list|full_key:|See https)", text)[0]
    return UserError(f"configuration: {short} {hint}".rstrip())
