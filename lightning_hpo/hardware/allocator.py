"""The memory of a training process on a CPU."""

import ctypes

__all__ = ["keep_freed_memory"]

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Larger tensors are rare on a CPU, and one that stays would leave too little room for another of them.
_LARGE = 2**28
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process, and those forked from it, use freed memory again and not give it back to the system.

    By itself glibc gives each large tensor back and asks for it anew, all zeroes, in the next layer: a fifth of a
    training step on a CPU. Where the C library knows no such setting, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
