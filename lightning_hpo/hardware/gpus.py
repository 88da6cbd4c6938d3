"""The graphics gpus of this machine that a study's processes are given."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

__all__ = ["GpuUse", "device_problems", "gpu_use", "leased_gpus", "visible_gpus"]

_ON_CARDS = ("auto", "gpu", "cuda")
# What CUDA takes of a gpu for each process beside its tensors, about; torch does not count it.
_CONTEXT_MIB = 512
# Of the gpu: what other processes, a display and fragments take is not known beforehand.
_USABLE = 0.95


@dataclass(frozen=True)
class GpuUse:
    """What a trial took of its graphics gpu.

    Args:
        reserved_mib: The most memory that its process has reserved for tensors.
        total_mib: That of the gpu.
    """

    reserved_mib: float
    total_mib: float

    @property
    def fitting(self) -> int:
        """How many such trials the gpu bears at the same time, at least the one that it bore."""
        return max(1, int(_USABLE * self.total_mib / (self.reserved_mib + _CONTEXT_MIB)))

    @property
    def advice(self) -> str:
        """The number in a line; a trial with another encoder, length or batch takes more or less."""
        taken, total = (mib / 1024 for mib in (self.reserved_mib + _CONTEXT_MIB, self.total_mib))
        return (
            f"it took {taken:.1f} of its gpu's {total:.1f} GiB: {self.fitting} like it fit on one "
            f"(--study.per_device {self.fitting})"
        )


def gpu_use(device: torch.device) -> GpuUse | None:
    """What this process has taken of its gpu so far; None on another device."""
    if device.type != "cuda":
        return None
    total = torch.cuda.get_device_properties(device).total_memory
    return GpuUse(torch.cuda.max_memory_reserved(device) / 2**20, total / 2**20)


def visible_gpus() -> tuple[str, ...]:
    """This machine's gpus, as CUDA_VISIBLE_DEVICES names them; where that is set, the gpus that it leaves."""
    count = torch.cuda.device_count()  # asks the driver's library; CUDA itself is left alone
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[:count]) if named else tuple(str(index) for index in range(count))


def leased_gpus(devices: Sequence[int] | Literal["auto"], accelerator: object, gpus: Sequence[str]) -> tuple[str, ...]:
    """The gpus that are given to processes, one each; none where processes are not given gpus.

    Args:
        devices: The setting: places in `gpus`, or "auto" for all where the trainer uses gpus.
        accelerator: The trainer's.
        gpus: The machine's.
    """
    if devices == "auto":
        return tuple(gpus) if accelerator in _ON_CARDS else ()
    return tuple(gpus[index] for index in devices if 0 <= index < len(gpus))


def device_problems(
    devices: Sequence[int] | Literal["auto"],
    accelerator: object,
    gpus: Sequence[str],
    *,
    workers: int,
    per_device: int,
) -> list[str]:
    """Why the workers cannot all have a gpu, a line each.

    Args:
        devices: The setting.
        accelerator: The trainer's.
        gpus: The machine's.
        workers: Trials at the same time.
        per_device: Trials at the same time on a gpu.
    """
    found = []
    if devices != "auto":
        there = ", ".join(map(str, range(len(gpus)))) or "none"
        found += [
            f"--study.devices: there is no graphics gpu {index}; there are: {there}"
            for index in devices
            if not 0 <= index < len(gpus)
        ]
    count = len(leased_gpus(devices, accelerator, gpus))
    if not found and 0 < count * per_device < workers:
        found.append(
            f"--study.workers: {workers} is more than {count} gpu{'s' * (count > 1)} x {per_device}; raise "
            f"--study.per_device to {-(-workers // count)}, or use {count * per_device} workers or fewer"
        )
    return found
