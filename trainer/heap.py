"""The C library's heap."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # as in malloc.h


def keep_freed_memory() -> None:
    """Have this process, and what it forks, keep the memory it frees; without effect where malloc is not glibc's.

    Each training step frees and takes the same hundreds of MB. glibc gives large blocks back to the system at once,
    which clears every page of them again for the next step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, -1)  # never give back the end of the heap
        mallopt(M_MMAP_MAX, 0)  # no block outside it, however large
