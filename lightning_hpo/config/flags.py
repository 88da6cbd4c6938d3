"""Parts of a config: values by flag, such as `model.optim.lr`, objects by class path, and the YAML of the whole."""

import importlib
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from lightning_hpo.exceptions import InputError

__all__ = ["as_yaml", "class_of", "flags", "instantiate", "read_yaml", "with_flags"]


_LONGEST_FOR_C = 10_000
"""Length of the longest text that libyaml parses. The resolved configs of the agents have a fourth of it."""


def flags(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config by flag, without the `init_args` of its file: `model.optim.lr`.

    The class path of a section is the value of the section's own flag, such as `model`.
    """
    return dict(_flatten(config, ""))


def _flatten(config: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        name = prefix if key == "init_args" else f"{prefix}.{key}" if prefix else key
        if key == "class_path":
            yield prefix, value
        elif isinstance(value, dict) and value:
            yield from _flatten(value, name)
        else:
            yield name, value


def with_flags(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a config with values by flag, such as `model.optim.lr`. The values are not checked."""
    config = deepcopy(dict(base))
    for flag, value in overrides.items():
        _set(config, flag, value)
    return config


def _set(config: dict[str, Any], flag: str, value: Any) -> None:
    first, *rest = flag.split(".")
    path = [first, "init_args", *rest] if rest and "class_path" in (config.get(first) or {}) else [first, *rest]
    at = config
    for key in path[:-1]:
        at[key] = at.get(key) or {}
        at = at[key]
    at[path[-1]] = value


def class_of(section: Mapping[str, Any]) -> type:
    """Import the class that the `class_path` of a config section names."""
    module, _, name = section["class_path"].rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found


def instantiate(base: type, config: Namespace, flag: str) -> Any:
    """Create an object from its class path and arguments. Errors name the flag that the user set.

    Raises:
        InputError: If the class raises a TypeError or ValueError for its arguments.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(base, "object")
    try:
        return parser.instantiate(Namespace(object=config)).object  # type: ignore[no-untyped-call]
    except (TypeError, ValueError) as error:
        name = config.class_path.rsplit(".", 1)[-1]
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(f"{flag}: {name} does not accept its arguments: {str(cause).splitlines()[0]}") from error


def read_yaml(text: str) -> dict[str, Any]:
    """Parse a config from YAML.

    Raises:
        YAMLError: If it is not YAML, or has too many levels.
    """
    # libyaml, which PyYAML's wheels contain, is ten times as fast as PyYAML's Python reader. But a text of some 30,000
    # brackets overflows its stack, which kills the process.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader) if len(text) <= _LONGEST_FOR_C else yaml.SafeLoader
    try:
        config: dict[str, Any] = yaml.load(text, loader)
    except RecursionError as error:
        raise yaml.YAMLError("too many levels") from error
    return config


def as_yaml(config: Mapping[str, Any]) -> str:
    """Write a config as YAML, in the order of its keys."""
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
