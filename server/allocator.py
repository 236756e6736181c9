"""glibc's malloc, told to give memory back: this process lives for weeks, and its threads take large blocks."""

from __future__ import annotations

import ctypes
import sys

# From malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MIB = 1 << 20


def give_memory_back() -> bool:
    """Bound what malloc keeps of freed memory; whether it could be told (only glibc can). Call it before any thread.

    Left alone, one freed block of up to 32 MiB makes glibc keep 64 MiB free in each arena, and it opens eight arenas a
    core. Under a mixed load on two cores, with MiniLM embedding in the threads, sixteen of them held 630 MB, 288 of it
    in use, and it grew by 40 MB a minute. Now 2 MB in 15 minutes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Any of the thresholds, once set, stays: glibc no longer raises it by itself.
    return all(mallopt(*option) for option in ((_ARENA_MAX, 2), (_MMAP_THRESHOLD, _MIB), (_TRIM_THRESHOLD, _MIB)))
