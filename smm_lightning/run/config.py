"""Where the configuration lies, and how values are written for it."""

import re
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
# In a wheel the groups are part of the package; a checkout reads the folder beside its own package.
CONF = next(place / "conf" for place in (_PACKAGE, _PACKAGE.parent) if (place / "conf").is_dir())


def quoted(text: str) -> str:
    """A value as Hydra reads it on a command line: in quotes, if it holds what means something."""
    if re.fullmatch(r"[\w./~-]+", text):
        return text
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)  # backslashes count before a quote alone
    end = re.search(r"\\*$", escaped)
    return f"'{escaped}{end[0] if end else ''}'"
