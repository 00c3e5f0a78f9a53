"""How many cores there are to work on."""

import os


def usable_cores() -> int:
    """The cores that this process may run on, which in a container can be fewer than the machine's."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1
