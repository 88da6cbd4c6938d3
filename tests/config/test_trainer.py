import re
from typing import Any

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from lightning_hpo.config.trainer import Trainer, monitor_problems, native_precision, trainer_problem
from lightning_hpo.exceptions import InputError


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


@pytest.mark.parametrize("devices", [2, "2", [0, 1], "0,1"])
def test_several_devices_are_refused_in_one_line(devices: Any) -> None:
    with pytest.raises(InputError) as caught:
        _quiet(devices=devices)
    [line] = caught.value.problems
    assert line.startswith(f"--trainer.devices: got {devices}; training uses one device")


def test_one_device_is_the_default_where_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CPUAccelerator, "auto_device_count", staticmethod(lambda: 2))
    assert _quiet().num_devices == _quiet(devices="auto").num_devices == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"num_nodes": 2}, "--trainer.num_nodes: got 2; "),
        ({"strategy": "ddp_spawn"}, "--trainer.strategy: got ddp_spawn, which trains in further processes"),
        ({"strategy": "ddp_notebook"}, "--trainer.strategy: got ddp_notebook, which trains in further processes"),
    ],
)
def test_several_machines_and_processes_are_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=re.escape(line)):
        _quiet(**options)


JOBS = {
    "slurm": {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "batch", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"},
    "torchrun": dict.fromkeys(("RANK", "LOCAL_RANK", "GROUP_RANK"), "1")
    | {"WORLD_SIZE": "2", "MASTER_ADDR": "other", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "1"},
    "kubeflow": {"KUBERNETES_PORT": "1", "MASTER_ADDR": "other", "MASTER_PORT": "1", "WORLD_SIZE": "2", "RANK": "1"},
    "lsf": {"LSB_JOBID": "1", "LSB_DJOB_RANKFILE": "/none", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "2"},
    "nodes": {"NODE_RANK": "1", "LOCAL_RANK": "1"},
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_variables_of_a_job_are_not_read(job: str, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in JOBS[job].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # set from the variables when Lightning is imported
    trainer = _quiet(strategy=strategy)
    assert (trainer.world_size, trainer.num_devices, trainer.num_nodes) == (1, 1, 1)
    ranks: Any = rank_zero_only
    assert (trainer.global_rank, trainer.local_rank, trainer.node_rank, ranks.rank) == (0, 0, 0, 0)
    environment = trainer.strategy.cluster_environment if strategy == "ddp" else None  # type: ignore[attr-defined]
    assert environment is None or environment.main_address == "127.0.0.1"


def test_environment_of_the_user_is_kept() -> None:
    own = OwnEnvironment()
    trainer = _quiet(strategy="ddp", plugins=own)
    assert trainer.strategy.cluster_environment is own  # type: ignore[attr-defined]


class OwnEnvironment(LightningEnvironment):
    pass


def test_an_error_names_only_flags_that_the_user_has_set() -> None:
    error = ValueError("`enable_progress_bar=False` and `max_time`\n do not fit RichProgressBar")
    assert trainer_problem(error, {"max_time": "00:01", "enable_progress_bar": None}).startswith("--trainer.max_time: ")
    callbacks = [{"class_path": "lightning.pytorch.callbacks.RichProgressBar"}]
    line = trainer_problem(error, {"max_time": None, "callbacks": callbacks})
    assert line == ("--trainer.callbacks: `enable_progress_bar=False` and `max_time` do not fit RichProgressBar")
    assert trainer_problem(error, {}).startswith("--trainer: ")


def test_callbacks_with_a_monitor_that_is_never_logged() -> None:
    callbacks = [EarlyStopping("val_f1"), ModelCheckpoint(monitor="val_x"), ModelCheckpoint(), EarlyStopping("a")]
    lax = EarlyStopping("val_f1", strict=False)
    assert monitor_problems([*callbacks, lax], {"a": 1.0}) == [
        "--trainer.callbacks: EarlyStopping: its monitor 'val_f1' is never logged; metrics: a",
        "--trainer.callbacks: ModelCheckpoint: its monitor 'val_x' is never logged; metrics: a",
    ]
