"""Description of the machine of a benchmark."""

import os
from pathlib import Path

import torch

from lightning_hpo.hardware.cpus import usable_cpus
from lightning_hpo.tracking.environment import environment_tags

__all__ = ["machine"]


def machine() -> dict[str, str]:
    """Return processor, memory, GPU, torch version and commit."""
    tags = environment_tags()
    commit = tags.get("mlflow.source.git.commit", "none")
    return {
        "processor": f"{_processor()}, {usable_cpus()} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": str(torch.__version__),
        "commit": commit + (" with uncommitted changes" if tags.get("git_dirty") == "true" else ""),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return str(os.uname().machine)
