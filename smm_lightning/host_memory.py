"""Keep freed host memory for the next step, instead of returning it to the system."""

import ctypes
import sys

# Options of glibc's mallopt, from its malloc.h, and what we set them to.
_SETTINGS = {
    -4: 0,  # M_MMAP_MAX: large tensors come from the heap, too
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: the heap does not shrink
    -2: 256 * 1024 * 1024,  # M_TOP_PAD: and grows in large steps
}


def keep_freed_memory() -> bool:
    """Let glibc reuse the activations' memory from step to step.

    By default every large tensor is mapped afresh and unmapped again, and the kernel zeroes its
    pages each time: more than half of a training step on a CPU (docs/BENCHMARKS.md).

    Returns:
        Whether the settings were taken; ``False`` where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, value) for option, value in _SETTINGS.items())
