import subprocess
import sys

import pytest
import torch

from lightning_hpo.hardware.memory import GpuUse, gpu_use

FAULTS = """
import resource, torch
{setting}
def touch():
    for _ in range(10):
        torch.ones(16_000_000)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEEP = "from lightning_hpo.hardware.memory import keep_freed_memory; keep_freed_memory()"


def _faults(setting: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS.format(setting=setting)], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_reused_by_the_next_large_tensor() -> None:
    assert _faults(KEEP) < _faults("") / 4


@pytest.mark.parametrize(("reserved", "fitting"), [(100.0, 126), (19_000.0, 3), (40_000.0, 1), (90_000.0, 1)])
def test_number_of_fitting_trials_follows_their_memory(reserved: float, fitting: int) -> None:
    assert GpuUse(reserved, 81_559.0).fitting == fitting


def test_the_advice_names_the_flag() -> None:
    assert GpuUse(19_456.0, 81_920.0).advice == (
        "it used 19.5 of 80.0 GiB of GPU memory: 3 such trials fit on one GPU (--study.per_device 3)"
    )


def test_gpu_use_is_none_on_a_cpu() -> None:
    assert gpu_use(torch.device("cpu")) is None
