"""The device on which a registered model answers."""

import os
from contextlib import suppress

import torch
from torch import fx

from lightning_hpo.exceptions import InputError

__all__ = ["VARIABLE", "move_network", "prediction_device"]

VARIABLE = "MLFLOW_DEFAULT_PREDICTION_DEVICE"
"""MLflow's environment variable with the name of the device."""

_TO_DEVICE = torch.ops.aten.to.device


def prediction_device(name: str = "", flag: str = VARIABLE) -> torch.device:
    """Return a device by its name: cpu, cuda, cuda:1, mps. An empty name is that of the environment variable, or cpu.

    Raises:
        InputError: If this machine has no such device. The message begins with `flag`.
    """
    wanted = name or os.environ.get(VARIABLE, "") or "cpu"
    device: torch.device | None = None
    with suppress(RuntimeError):  # no name of a device
        device = torch.device(wanted)
    if device is None or not _is_there(device):
        there = [name for name in ("cpu", "cuda", "mps") if _is_there(torch.device(name))]
        raise InputError(f"{flag}: got {wanted}, but this machine has no such device; use {' or '.join(there)}")
    return device


def move_network(network: fx.GraphModule, device: torch.device) -> None:
    """Move an exported network to another device, with the devices that its operations name.

    Torch's `move_to_device_pass` does the same to a program that is not yet a module.
    """
    network.to(device)
    for part in network.modules():
        if isinstance(part, fx.GraphModule):
            _rename_devices(part, device)
            part.recompile()


def _rename_devices(network: fx.GraphModule, device: torch.device) -> None:
    for node in network.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": device}
        if node.target is _TO_DEVICE:
            node.args = (node.args[0], device, *node.args[2:])
        if node.op == "get_attr" and isinstance(getattr(network, node.target, None), torch.Tensor):
            constant = getattr(network, node.target)
            if constant.device != device:  # neither a parameter nor a buffer
                setattr(network, node.target, constant.to(device))


def _is_there(device: torch.device) -> bool:
    if device.type == "cpu":
        return True
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type == "mps" and torch.backends.mps.is_available()
