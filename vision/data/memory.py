"""How the C library keeps freed memory for the next arrays."""

from __future__ import annotations

import ctypes
import functools
import os

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
_LARGEST_MMAP_THRESHOLD = 32 << 20  # glibc takes no more
_TRIM_ABOVE = 256 << 20


@functools.cache
def keep_freed_memory() -> bool:
    """Tells glibc to keep freed blocks, up to 256 MiB, instead of handing them back at once.

    By default every decoded picture lives in pages that the kernel maps, zeroes and takes back
    again, which costs a third of the decoding time. Each arena keeps its own, so there is at most
    one arena for a core, where glibc makes eight: the threads of one loader after another would
    use ever more of them. It holds for the whole process and is done once. Returns whether the C
    library took it; others than glibc do as they like.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        and mallopt(_M_TRIM_THRESHOLD, _TRIM_ABOVE)
        and mallopt(_M_ARENA_MAX, max(2, os.cpu_count() or 1))
    )
