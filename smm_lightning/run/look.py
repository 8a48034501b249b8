"""How a method looks in figures and tables: the node ``look`` of its file in ``conf/method``."""

import zlib
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pydantic import Field

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#999999")
Marker = Literal["o", "s", "D", "^", "v", "P", "*", "X"]
MARKERS = get_args(Marker)


@dataclass(frozen=True)
class Look:
    """Of a method; it changes no result.

    Attributes:
        label: its name for people.
        colour: ``#rrggbb``.
        marker: matplotlib's, so that print in black and white tells methods apart as well.
    """

    label: Annotated[str, Field(min_length=1, max_length=100)]
    colour: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
    marker: Marker


def look_of_name(name: str) -> Look:
    """Of a method that does not say: always the same for the same name."""
    place = zlib.crc32(name.encode(errors="surrogateescape")) % len(COLOURS)
    return Look(name, COLOURS[place], MARKERS[place])
