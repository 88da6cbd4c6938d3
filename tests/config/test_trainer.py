from typing import Any

import pytest
import torch
from lightning.pytorch.accelerators import CPUAccelerator

from lightning_hpo.config.trainer import Trainer, native_precision


def _quiet(**options: Any) -> Trainer:
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    return Trainer(accelerator="cpu", **quiet, **options)


@pytest.mark.parametrize(
    ("known", "precision"),
    [
        ({"avx512_bf16": True}, "bf16-mixed"),
        ({"amx_bf16": True, "avx512_bf16": False}, "bf16-mixed"),
        ({"avx512_f": True, "avx512_bf16": False}, "32-true"),
        ({}, "32-true"),
    ],
)
def test_auto_precision_is_bf16_on_a_cpu_with_native_bf16(
    known: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert native_precision("cpu") == native_precision(CPUAccelerator()) == precision
    assert _quiet(precision="auto").precision == precision


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_precision_is_bf16_on_a_gpu_with_native_bf16(
    native: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    # GPUs from before 2020 emulate bf16, which is slower than float32.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert native_precision("gpu") == native_precision("auto") == precision
    assert native_precision("cpu") == "32-true"


@pytest.mark.parametrize(("given", "taken"), [(None, "32-true"), ("bf16-mixed", "bf16-mixed"), (64, "64-true")])
def test_other_precisions_are_passed_to_lightning(given: object, taken: str) -> None:
    assert _quiet(precision=given).precision == taken
