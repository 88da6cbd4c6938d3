"""Configs that version 0.1.0 has saved. They have no `--data.split_rule`, and keep the only rule that existed then."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lightning_hpo.config.flags import read_yaml, with_flags

__all__ = ["PREVIOUS_SPLIT", "with_previous_split"]

PREVIOUS_SPLIT = {"data.split_rule": "hash"}
"""Flag and value of the rule of version 0.1.0."""

# A saved config has a value for every argument of the data module; configs that people write have a few of them.
_ARGUMENTS = frozenset(
    {"posts", "annotations", "criteria", "max_length", "stride", "batch_size", "eval_batch_size", "negative_ratio"}
    | {"seed", "draw_seed", "val_fraction", "test_fraction", "num_workers", "aliases", "leave_out"}
)


def with_previous_split(args: Sequence[str] | Mapping[str, Any]) -> list[str] | dict[str, Any]:
    """Return arguments in which each config of version 0.1.0 is followed by its rule for the split.

    Args:
        args: Command-line arguments, or a config as a dictionary.
    """
    if isinstance(args, Mapping):
        return with_flags(args, PREVIOUS_SPLIT) if _is_previous(args) else dict(args)
    completed: list[str] = []
    for index, argument in enumerate(args):
        completed.append(argument)
        before = args[index - 1] if index else ""
        path = argument if before == "--config" else argument.removeprefix("--config=")
        if path != argument or before == "--config":
            completed += [f"--{flag}={value}" for flag, value in PREVIOUS_SPLIT.items() if _is_previous_file(path)]
    return completed


def _is_previous(config: Any) -> bool:
    data = config.get("data") if isinstance(config, Mapping) else None
    arguments = data.get("init_args") if isinstance(data, Mapping) else None
    return isinstance(arguments, Mapping) and arguments.keys() >= _ARGUMENTS and "split_rule" not in arguments


def _is_previous_file(path: str) -> bool:
    try:
        return _is_previous(read_yaml(Path(path).read_text(encoding="utf-8")))
    except (OSError, ValueError, yaml.YAMLError):
        return False  # parsing the arguments reports it
