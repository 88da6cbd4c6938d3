"""Lightning's Trainer on one device, with one more precision, `auto`, and with errors of one line."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any, Literal

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch import Trainer as LightningTrainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.utilities import rank_zero_only

from lightning_hpo.config.lightning_private import starts_processes
from lightning_hpo.exceptions import InputError, raise_problems
from lightning_hpo.hardware.bf16 import computes_bf16

__all__ = [
    "Precision",
    "Trainer",
    "check_monitors",
    "device_problems",
    "monitor_problems",
    "native_precision",
    "one_line_errors",
    "trainer_callbacks",
    "trainer_problem",
]

_Torch = Literal["16-mixed", "bf16-mixed", "32-true", "16-true", "bf16-true", "64-true"]
_Nvidia = Literal["transformer-engine", "transformer-engine-float16"]
_Short = Literal["16", "bf16", "32", "64", 16, 32, 64]
Precision = Literal["auto", _Torch, _Nvidia, _Short]

_LONGEST = 300


class Trainer(LightningTrainer):
    """Trainer of every command. It trains on one device and ignores a job's environment variables.

    Args:
        accelerator: Accelerator, as in Lightning: auto, cpu, gpu, ...
        devices: The device: auto or 1 for the first one, or a list of one index, such as [1].
        num_nodes: Number of machines, which must be 1.
        precision: Any precision of Lightning, or `auto` (bf16-mixed if the device has native bf16, otherwise 32-true).
            Default: 32-true.
        options: All other arguments of Lightning's Trainer.

    Raises:
        InputError: If the arguments ask for several devices, machines or processes.
    """

    def __init__(
        self,
        *,
        accelerator: str | Accelerator = "auto",
        devices: list[int] | str | int = "auto",
        num_nodes: int = 1,
        precision: Precision | None = None,
        **options: Any,
    ) -> None:
        raise_problems(device_problems(devices, num_nodes))
        chosen = native_precision(accelerator) if precision == "auto" else precision
        options.update(plugins=_with_environment(options.get("plugins")))
        super().__init__(
            accelerator=accelerator,
            devices=1 if devices == "auto" else devices,
            num_nodes=num_nodes,
            precision=chosen,
            **options,
        )
        raise_problems(device_problems(self.num_devices if devices in (-1, "-1") else 1, 1))
        if starts_processes(self):
            raise InputError(
                f"--trainer.strategy: got {options.get('strategy')}, which trains in further processes; leave it out"
            )
        # Lightning has set it from a job's variables, and would log nothing in all tasks but the first.
        rank_zero_only.rank = 0  # type: ignore[attr-defined]


class _OneProcess(LightningEnvironment):
    """Environment of one process that reads no variables of a job, such as RANK or MASTER_ADDR."""

    creates_processes_externally = False
    main_address = "127.0.0.1"

    def local_rank(self) -> int:
        """Return 0: there is one process."""
        return 0

    def node_rank(self) -> int:
        """Return 0: there is one machine."""
        return 0


def _with_environment(plugins: Any) -> list[Any]:
    """Return the plugins with an environment of one process, unless they have an environment.

    Lightning would choose that of a job (Slurm, torchrun, LSF, Kubeflow, MPI), which expects a process for each task.
    """
    given = list(plugins) if isinstance(plugins, list | tuple) else [] if plugins is None else [plugins]
    chosen = any(isinstance(plugin, ClusterEnvironment) for plugin in given)
    return given if chosen else [*given, _OneProcess()]


def device_problems(devices: object, num_nodes: object = 1) -> list[str]:
    """Return one line for each value of `--trainer.devices` and `--trainer.num_nodes` that asks for more than one.

    -1 stands for all devices, whose number only a Trainer knows.
    """
    problems = []
    count = devices
    if isinstance(devices, str):
        count = [index for index in devices.split(",") if index.strip()]
        count = int(devices) if devices.lstrip("-").isdigit() else count
    if len(count) > 1 if isinstance(count, list) else isinstance(count, int) and count > 1:
        problems.append(
            f"--trainer.devices: got {devices}; training uses one device: give 1, or its index such as [0]; `tune` "
            "trains several trials at the same time: --study.workers"
        )
    if num_nodes not in (None, 1):
        problems.append(f"--trainer.num_nodes: got {num_nodes}; training uses one device of one machine; use 1")
    return problems


def trainer_problem(error: BaseException, values: Mapping[str, Any], section: str = "") -> str:
    """Return an error of Lightning's Trainer in one line, with the flags that the user has set and it is about.

    Args:
        error: The error. Its message is about the configuration.
        values: The `trainer` section of the config.
        section: Name of the argument in which the error was raised, if it is known.
    """
    text = " ".join(str(error).split())
    defaults = {name: taken.default for name, taken in signature(LightningTrainer.__init__).parameters.items()}
    flags = [
        f"--trainer.{name}"
        for name, value in values.items()
        if value is not None and value != defaults.get(name) and re.search(rf"\b{name}\b", text)
    ]
    classes = [name for name in trainer_callbacks(values) if re.search(rf"\b{name}\b", text)]
    if not flags and (classes or section):
        flags = [f"--trainer.{'callbacks' if classes else section}"]
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST].rsplit(' ', 1)[0]} ..."
    return f"{', '.join(flags) or '--trainer'}: {shown or type(error).__name__}"


def trainer_callbacks(values: Mapping[str, Any]) -> list[str]:
    """Return the class names of the callbacks in a `trainer` section."""
    callbacks = values.get("callbacks")
    configured = callbacks if isinstance(callbacks, list) else [callbacks]
    return [each["class_path"].rsplit(".", 1)[-1] for each in configured if isinstance(each, Mapping)]


def monitor_problems(callbacks: Sequence[Callback], logged: Mapping[str, Any]) -> list[str]:
    """Return one line for each callback, such as EarlyStopping, whose monitored metric is not among those logged."""
    names = ", ".join(sorted(logged)) or "nothing"
    return [
        f"--trainer.callbacks: {type(callback).__name__}: its monitor {monitor!r} is never logged; metrics: {names}"
        for callback in callbacks
        if isinstance(monitor := getattr(callback, "monitor", None), str)
        and monitor not in logged
        and getattr(callback, "strict", True)
    ]


def check_monitors(trainer: LightningTrainer, values: Mapping[str, Any]) -> None:
    """Check, after an epoch of training, that all metrics that callbacks of the config monitor have been logged.

    Args:
        trainer: The Trainer.
        values: The `trainer` section of the config.

    Raises:
        InputError: One line for each callback whose metric has not.
    """
    configured, found = trainer_callbacks(values), trainer.callbacks  # type: ignore[attr-defined]
    callbacks = [callback for callback in found if type(callback).__name__ in configured]
    raise_problems(monitor_problems(callbacks, trainer.callback_metrics))


@contextmanager
def one_line_errors(trainer: LightningTrainer, values: Mapping[str, Any]) -> Iterator[None]:
    """Report what Lightning finds wrong in the config while it trains, in one line each.

    Args:
        trainer: The Trainer.
        values: The `trainer` section of the config.

    Raises:
        InputError: If the Trainer's arguments or callbacks do not fit each other, the module or the data.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise InputError(trainer_problem(error, values)) from error
    except RuntimeError as error:
        # EarlyStopping raises it after an epoch, when all metrics have been logged.
        if "metric" in str(error):
            check_monitors(trainer, values)
        raise


def native_precision(accelerator: str | Accelerator) -> Literal["bf16-mixed", "32-true"]:
    """Return bf16-mixed if the device of an accelerator has native bf16, otherwise 32-true."""
    named = str(accelerator) if isinstance(accelerator, str) else type(accelerator).__name__.lower()
    if "cpu" in named or (named == "auto" and not torch.accelerator.is_available()):
        native = computes_bf16()
    else:
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if native else "32-true"
