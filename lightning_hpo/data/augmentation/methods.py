"""The ways to change words, by their names."""

import difflib
from collections.abc import Sequence

from lightning_hpo.data.augmentation.method import Method
from lightning_hpo.data.augmentation.nlpaug_methods import NLPAUG, nlpaug_method
from lightning_hpo.data.augmentation.noise import deleted, misread, mistyped, split, swapped
from lightning_hpo.exceptions import InputError

__all__ = ["METHODS", "load_methods", "unknown_methods"]

_BUILT_IN = {
    "swap": Method(swapped, width=2),
    "delete": Method(deleted),
    "split": Method(split),
    "keyboard": Method(mistyped),
    "ocr": Method(misread),
}
METHODS = (*_BUILT_IN, *NLPAUG)


def unknown_methods(names: Sequence[str]) -> list[str]:
    """A line for each name that is no method's."""
    return [
        f"--aug.methods: {name!r} is no method; {_offer(name)}choose from {', '.join(METHODS)}"
        for name in names
        if name not in METHODS
    ]


def load_methods(names: Sequence[str]) -> list[Method]:
    """Make methods ready for use.

    Raises:
        InputError: A name is unknown, or what a method needs is not on this machine; a line each.
    """
    problems = unknown_methods(names)
    methods: list[Method] = []
    for name in names:
        try:
            methods += [_BUILT_IN[name] if name in _BUILT_IN else nlpaug_method(name)] if name in METHODS else []
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return methods


def _offer(name: str) -> str:
    near = difflib.get_close_matches(name, METHODS, n=1)
    return f"did you mean {near[0]}? or " if near else ""
