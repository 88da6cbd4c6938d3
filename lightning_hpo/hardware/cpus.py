"""CPUs that this process may use."""

import os

__all__ = ["usable_cpus"]


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use. macOS limits no process to some of its CPUs."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
