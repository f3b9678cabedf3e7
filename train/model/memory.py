"""Memory that a step frees stays with the process: the next step takes as much again.

glibc hands the end of the heap back to the system, which fills it with zeros before it gives it out anew: some 500
pages a step of ml-100k, and 2 to 4% of its time.
"""

import ctypes
import sys
from typing import Final

# malloc.h of glibc: the options of mallopt(3).
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3

KEPT_BYTES: Final = 256 << 20  # free at the end of the heap, before any goes back
LARGE_BYTES: Final = 32 << 20  # from here on a tensor has pages of its own; glibc allows no more


def keep_freed() -> bool:
    """Keep what is freed, for the life of the process. Returns whether the C library took it: only glibc knows how."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    options = (M_TRIM_THRESHOLD, KEPT_BYTES), (M_MMAP_THRESHOLD, LARGE_BYTES)
    return mallopt is not None and all(mallopt(option, value) for option, value in options)
