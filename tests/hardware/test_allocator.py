import subprocess
import sys

import pytest

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
KEEP = "from lightning_hpo.hardware.allocator import keep_freed_memory; keep_freed_memory()"


def _faults(setting: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS.format(setting=setting)], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_large_tensor_takes_the_place_of_the_last_one() -> None:
    assert _faults(KEEP) < _faults("") / 4
