"""Where images come from. A source answers with splits; a split reads one image at a time."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from smm_lightning.dataset.decoding import AS_PUBLISHED, Decoding
from smm_lightning.dataset.splits import Splits
from smm_lightning.errors import Problems


@dataclass(frozen=True)
class Listing:
    """What is known of a split without decoding its images.

    Attributes:
        stamp: see :attr:`Split.stamp`.
        left_out: how many files were not taken, by reason.
        folder: that the split was found in, where it is a folder.
    """

    stamp: str
    left_out: Mapping[str, int] = field(default_factory=dict)
    folder: str | None = None


class Source(ABC):
    """Contract of a source: cheap to build; ``load`` finds the images.

    Attributes:
        name: for the folders of image caches, and messages.
        image_size: side of the images where all share one and it is small (32 x 32), in pixels.
            Such images stay at that size until they are on the device.
        decoding: how its files become RGB.
    """

    name: str
    image_size: int | None = None
    decoding: Decoding = AS_PUBLISHED

    def is_there(self) -> bool:
        """Whether its files are on this machine at all; they may still be incomplete."""
        return True

    @abstractmethod
    def load(self) -> Splits:
        """Find the images.

        Raises:
            UserError: If files are missing or do not fit each other.
        """

    def listings(self, load: Callable[[], Splits] | None = None) -> dict[str, Listing]:
        """What is known of every split that exists.

        Sources that can tell without loading the images override this.

        Args:
            load: :meth:`load`, or what remembers its answer.

        Raises:
            UserError: If files are missing.
        """
        problems = Problems()
        listed = {}
        splits = (load or self.load)()
        classes = hashlib.sha256(repr(splits.class_names).encode(errors="surrogateescape"))
        for name, split in splits.parts().items():
            with problems.caught():
                stamp = f"{split.stamp} {classes.hexdigest()[:12]}"
                listed[name] = Listing(stamp, split.left_out, split.folder)
        problems.raise_if_any()
        return listed
