"""A function of image batches through ``torch.compile``, with CUDA graphs on a GPU."""

import logging
from collections.abc import Callable

import torch
from torch import Tensor

Images = Callable[[Tensor], Tensor]


class Compiled:
    """Runs whole batches compiled and all others as they are.

    Every batch size would be compiled anew, which takes longer than a last, uneven batch.

    Args:
        function: (B, 3, s, s) to (B, source classes).
        sizes: B of whole batches.
    """

    def __init__(self, function: Images, sizes: set[int]) -> None:
        self.function = function
        self.sizes = sizes
        self._fast = torch.compile(function, dynamic=False, mode="reduce-overhead")

    def __call__(self, images: Tensor) -> Tensor:
        """See ``function``."""
        if len(images) not in self.sizes:
            return self.function(images)
        torch.compiler.cudagraph_mark_step_begin()
        return self._fast(images)

    def works_on(self, images: Tensor) -> bool:
        """Compile forward and backward pass now; ``False`` and a warning if that is impossible.

        A compiler that is missing or fails must cost speed, not the run.

        Args:
            images: a batch to try it with.
        """
        try:
            self(images).sum().backward()
        except Exception as error:  # the compiler's stages have many of their own
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            logging.getLogger(__name__).warning(
                "torch.compile failed, training goes on without it (compiled=false): %s", reason
            )
            return False
        return True
