import os

import pytest

from lightning_hpo.hardware.cpus import usable_cpus


def test_cpus_of_this_process_are_counted() -> None:
    assert usable_cpus() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("counted", "wanted"), [(8, 8), (None, 1)])
def test_cpus_of_the_machine_are_counted_on_macos(
    counted: int | None, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert usable_cpus() == wanted
