from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_hpo.hardware.gpus import GpuUse, device_problems, gpu_use, leased_gpus, visible_gpus
from lightning_hpo.trial.run import _device_tags

CARDS = ("0", "1")


@pytest.mark.parametrize(
    ("visible", "count", "gpus"),
    [
        (None, 0, ()),
        (None, 2, ("0", "1")),
        ("", 0, ()),
        ("2, 3", 2, ("2", "3")),
        ("GPU-5f,GPU-6a", 2, ("GPU-5f", "GPU-6a")),
        ("1,9", 1, ("1",)),  # CUDA stops at the first that is not there
        ("-1", 0, ()),
    ],
)
def test_the_gpus_are_those_that_the_user_leaves_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, gpus: tuple[str, ...]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert visible_gpus() == gpus


@pytest.mark.parametrize(
    ("devices", "accelerator", "leased"),
    [
        ("auto", "auto", ("4", "5")),
        ("auto", "gpu", ("4", "5")),
        ("auto", "cpu", ()),
        ([1], "auto", ("5",)),
        ([1, 0], "gpu", ("5", "4")),
    ],
)
def test_what_is_given_to_processes(devices: Any, accelerator: str, leased: tuple[str, ...]) -> None:
    assert leased_gpus(devices, accelerator, ("4", "5")) == leased


def _problems(devices: Any = "auto", accelerator: str = "auto", gpus: Any = CARDS, **limits: int) -> list[str]:
    return device_problems(devices, accelerator, gpus, **{"workers": 1, "per_device": 1, **limits})


def test_what_fits_is_no_problem() -> None:
    assert _problems(workers=2) == []
    assert _problems(workers=4, per_device=2) == []
    assert _problems([1], workers=3, per_device=3) == []
    assert _problems(accelerator="cpu", workers=9) == []
    assert _problems(gpus=(), workers=9) == []


def test_a_gpu_that_is_not_there_is_named() -> None:
    assert _problems([0, 2, -1]) == [
        "--study.devices: there is no graphics gpu 2; there are: 0, 1",
        "--study.devices: there is no graphics gpu -1; there are: 0, 1",
    ]
    assert _problems([0], gpus=()) == ["--study.devices: there is no graphics gpu 0; there are: none"]


def test_more_workers_than_the_gpus_bear_are_refused() -> None:
    assert _problems(workers=5) == [
        "--study.workers: 5 is more than 2 gpus x 1; raise --study.per_device to 3, or use 2 workers or fewer"
    ]
    [line] = _problems([1], workers=3, per_device=2)
    assert line.startswith("--study.workers: 3 is more than 1 gpu x 2; raise --study.per_device to 3, ")


@pytest.mark.parametrize(
    ("kind", "visible", "tags"),
    [
        ("cpu", "3", {"device": "cpu"}),
        ("cuda", "3", {"device": "a gpu", "device_index": "3"}),
        ("cuda", None, {"device": "a gpu"}),
    ],
)
def test_the_gpu_stands_on_the_run(
    monkeypatch: pytest.MonkeyPatch, kind: str, visible: str | None, tags: dict[str, str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a gpu")
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(kind)))
    assert _device_tags(trainer) == tags


@pytest.mark.parametrize(("reserved", "fitting"), [(100.0, 126), (19_000.0, 3), (40_000.0, 1), (90_000.0, 1)])
def test_as_many_trials_fit_as_their_memory_lets(reserved: float, fitting: int) -> None:
    assert GpuUse(reserved, 81_559.0).fitting == fitting


def test_the_advice_names_the_flag() -> None:
    assert GpuUse(19_456.0, 81_920.0).advice == (
        "it took 19.5 of its gpu's 80.0 GiB: 3 like it fit on one (--study.per_device 3)"
    )


def test_what_a_gpu_bears_is_counted_where_there_is_one() -> None:
    assert gpu_use(torch.device("cpu")) is None
