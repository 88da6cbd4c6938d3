"""Memory of a training process, on the CPU and on a GPU."""

import ctypes
from dataclasses import dataclass

import torch

__all__ = ["GpuUse", "gpu_use", "keep_freed_memory"]

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Larger tensors are rare on a CPU. If glibc kept a larger block, it might leave too little memory for the next one.
_LARGE = 2**28
_LARGEST_INT = 2**31 - 1
# Rough size of the CUDA context of a process. torch does not count it.
_CONTEXT_MIB = 512
# Usable share of the GPU memory. Other processes, a display and fragmentation take the rest.
_USABLE = 0.95


def keep_freed_memory() -> None:
    """Make this process, and the processes forked from it, reuse freed memory instead of returning it to the system.

    By default glibc returns the memory of each large tensor and requests it again, zeroed, for the next layer. This
    takes a fifth of a training step on a CPU. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_TRIM_THRESHOLD, _LARGEST_INT)


@dataclass(frozen=True)
class GpuUse:
    """GPU memory that a trial used.

    Args:
        reserved_mib: Peak memory that the process reserved for tensors, in MiB.
        total_mib: Memory of the GPU, in MiB.
    """

    reserved_mib: float
    total_mib: float

    @property
    def fitting(self) -> int:
        """Estimate how many such trials fit on the GPU at once (at least 1)."""
        return max(1, int(_USABLE * self.total_mib / (self.reserved_mib + _CONTEXT_MIB)))

    @property
    def advice(self) -> str:
        """Estimate in one line; trials with another encoder, window length or batch size use more or less."""
        used, total = (mib / 1024 for mib in (self.reserved_mib + _CONTEXT_MIB, self.total_mib))
        return (
            f"it used {used:.1f} of {total:.1f} GiB of GPU memory: {self.fitting} such trials fit on one GPU "
            f"(--study.per_device {self.fitting})"
        )


def gpu_use(device: torch.device) -> GpuUse | None:
    """Return the GPU memory that this process has used so far, or None on another device."""
    if device.type != "cuda":
        return None
    total = torch.cuda.get_device_properties(device).total_memory
    return GpuUse(torch.cuda.max_memory_reserved(device) / 2**20, total / 2**20)
