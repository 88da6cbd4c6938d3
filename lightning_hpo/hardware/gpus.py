"""GPUs of this machine, and how a study leases them to its trial processes."""

import os
from collections.abc import Sequence
from typing import Literal

import torch

__all__ = ["device_problems", "leased_gpus", "visible_gpus"]

_GPU_ACCELERATORS = ("auto", "gpu", "cuda")


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs of this machine as CUDA_VISIBLE_DEVICES names them, without those that it hides."""
    count = torch.cuda.device_count()  # reads NVML, and does not initialize CUDA
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[:count]) if named else tuple(str(index) for index in range(count))


def leased_gpus(devices: Sequence[int] | Literal["auto"], accelerator: object, gpus: Sequence[str]) -> tuple[str, ...]:
    """Return the GPUs of the machine that are leased to trial processes; none if the trials do not use GPUs.

    `--study.devices` gives indices into `gpus`, or "auto" for all GPUs if `--trainer.accelerator` uses GPUs.
    """
    if devices == "auto":
        return tuple(gpus) if accelerator in _GPU_ACCELERATORS else ()
    return tuple(gpus[index] for index in devices if 0 <= index < len(gpus))


def device_problems(
    devices: Sequence[int] | Literal["auto"], accelerator: object, gpus: Sequence[str], *, workers: int, per_device: int
) -> list[str]:
    """Return one line for each reason why not every worker gets a GPU, which `per_device` workers may share."""
    problems = []
    if devices != "auto":
        available = ", ".join(map(str, range(len(gpus)))) or "none"
        problems += [
            f"--study.devices: got {index}; the GPUs of this machine are: {available}"
            for index in devices
            if not 0 <= index < len(gpus)
        ]
    count = len(leased_gpus(devices, accelerator, gpus))
    if not problems and 0 < count * per_device < workers:
        problems.append(
            f"--study.workers: {workers} is more than {count} GPU{'s' * (count > 1)} x {per_device}; raise "
            f"--study.per_device to {-(-workers // count)}, or use {count * per_device} workers or fewer"
        )
    return problems
