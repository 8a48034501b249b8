"""Where the configuration lies."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
# In a wheel the groups are part of the package; a checkout reads the folder beside its own package.
CONF = next(place / "conf" for place in (_PACKAGE, _PACKAGE.parent) if (place / "conf").is_dir())
