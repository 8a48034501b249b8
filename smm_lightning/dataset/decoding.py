"""From image files to RGB."""

import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageColor, ImageOps

from smm_lightning.errors import UserError, problem


@dataclass(frozen=True)
class Decoding:
    """How image files become RGB. As it is by default, so does the published code.

    Args:
        exif: turn photographs upright, as their camera noted. (Pillow always does so with TIFF.)
        background: colour behind what is transparent, by name or ``#rrggbb``; ``None`` drops the
            transparency, and shows whatever colour lies below it.

    Raises:
        UserError: If the colour is unknown.
    """

    exif: bool = False
    background: str | None = None

    def __post_init__(self) -> None:
        if self.background is not None:
            try:
                ImageColor.getrgb(self.background)
            except (ValueError, AttributeError, TypeError) as error:
                hint = "Use a name such as white, or #rrggbb."
                raise problem(
                    "dataset.source.background", "is no colour", self.background, hint
                ) from error

    @property
    def words(self) -> str:
        """What differs from the published code, for the head of a sentence."""
        parts = ["turned upright"] * self.exif
        parts += [] if self.background is None else [f"on {self.background}"]
        return "".join(f"{part}, " for part in parts)

    def rgb(self, image: Image.Image) -> Image.Image:
        """The image upright, opaque, in RGB."""
        if self.exif:
            image.load()  # before all else: what is no image is no matter of its EXIF data
            with suppress(Exception):  # which may be anything
                ImageOps.exif_transpose(image, in_place=True)
        if self.background is None or not image.has_transparency_data:
            return image.convert("RGB")
        behind = Image.new("RGBA", image.size, self.background)
        return Image.alpha_composite(behind, image.convert("RGBA")).convert("RGB")


AS_PUBLISHED = Decoding()


def pixel_hash(image: Image.Image) -> bytes:
    """Sixteen bytes that are equal for images of equal size and pixels."""
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


def decoded(file: Path | bytes, where: str, decoding: Decoding = AS_PUBLISHED) -> Image.Image:
    """An encoded image as RGB, decoded to its last row.

    Args:
        file: its path or its content.
        where: the words that name it in a message.
        decoding: how it becomes RGB.

    Raises:
        UserError: If it cannot be decoded, or holds more than 8 bits a channel.
    """
    if isinstance(file, Path) and file.exists() and not file.is_file():
        raise problem(where, "is no regular file")  # a pipe would be waited for
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            if image.mode.startswith(("I", "F")):  # convert() would clip it to white
                raise problem(
                    where,
                    "has more than 8 bits a channel",
                    image.mode,
                    "Convert the file to 8 bits: which range is black to white is your choice.",
                )
            # Before resizing: a palette image would otherwise be resized by nearest neighbour.
            return decoding.rgb(image)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        what = f"has more than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels that are decoded"
        raise problem(where, what, hint="Make it smaller.") from error
    except Exception as error:  # PIL's decoders raise many kinds, SyntaxError among them
        raise problem(
            where,
            f"is no readable image ({type(error).__name__})",
            hint="Replace or remove the file.",
        ) from error
