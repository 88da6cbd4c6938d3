from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lightning_hpo.hardware.gpus import device_problems, leased_gpus, visible_gpus
from lightning_hpo.trial.run import _device_tags

GPUS = ("0", "1")


@pytest.mark.parametrize(
    ("visible", "count", "gpus"),
    [
        (None, 0, ()),
        (None, 2, ("0", "1")),
        ("", 0, ()),
        ("2, 3", 2, ("2", "3")),
        ("GPU-5f,GPU-6a", 2, ("GPU-5f", "GPU-6a")),
        ("1,9", 1, ("1",)),  # CUDA stops at the first index that does not exist
        ("-1", 0, ()),
    ],
)
def test_visible_gpus_follow_cuda_visible_devices(
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
def test_leased_gpus_follow_the_devices_and_the_accelerator(
    devices: Any, accelerator: str, leased: tuple[str, ...]
) -> None:
    assert leased_gpus(devices, accelerator, ("4", "5")) == leased


def _problems(devices: Any = "auto", accelerator: str = "auto", gpus: Any = GPUS, **limits: int) -> list[str]:
    return device_problems(devices, accelerator, gpus, **{"workers": 1, "per_device": 1, **limits})


def test_enough_gpus_are_no_problem() -> None:
    assert _problems(workers=2) == []
    assert _problems(workers=4, per_device=2) == []
    assert _problems([1], workers=3, per_device=3) == []
    assert _problems(accelerator="cpu", workers=9) == []
    assert _problems(gpus=(), workers=9) == []


def test_missing_gpus_are_named() -> None:
    assert _problems([0, 2, -1]) == [
        "--study.devices: got 2; the GPUs of this machine are: 0, 1",
        "--study.devices: got -1; the GPUs of this machine are: 0, 1",
    ]
    assert _problems([0], gpus=()) == ["--study.devices: got 0; the GPUs of this machine are: none"]


def test_more_workers_than_fit_on_the_gpus_are_refused() -> None:
    assert _problems(workers=5) == [
        "--study.workers: 5 is more than 2 GPUs x 1; raise --study.per_device to 3, or use 2 workers or fewer"
    ]
    [line] = _problems([1], workers=3, per_device=2)
    assert line.startswith("--study.workers: 3 is more than 1 GPU x 2; raise --study.per_device to 3, ")


@pytest.mark.parametrize(
    ("kind", "visible", "tags"),
    [
        ("cpu", "3", {"device": "cpu"}),
        ("cuda", "3", {"device": "a GPU", "device_index": "3"}),
        ("cuda", None, {"device": "a GPU"}),
    ],
)
def test_the_run_is_tagged_with_the_gpu(
    monkeypatch: pytest.MonkeyPatch, kind: str, visible: str | None, tags: dict[str, str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    trainer: Any = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(kind)))
    assert _device_tags(trainer) == tags
