"""All errors of a config at once, one line each.

The parser stops at the first error. So each rejected key is removed, and the rest is parsed again.
"""

import difflib
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule

from lightning_hpo.databases import masked
from lightning_hpo.exceptions import InputError, LightningHpoError

__all__ = ["config_problems", "early_errors", "early_reason", "nearest", "with_files"]

_MOST_PROBLEMS = 20
_COMMANDS = "fit|validate|test|predict"
_NOISE = re.compile(
    r"(Parser key|Does not validate|Subtypes|Errors|Given value|Problem with given|Problems parsing|Expected a path but"
    r"|Expected a <class 'NoneType'>)"
)


def early_reason(error: BaseException) -> str:
    """Return the class of an exception and the first line of its message, or only the class if it may quote a post.

    Args:
        error: An exception from before the first post was read. A data module may read posts when it is created.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if error.__cause__ is not None and frames[-1].f_globals["__name__"].startswith("jsonargparse"):
        return early_reason(error.__cause__)  # the parser wraps the error of a class in one that quotes its types
    quotes = any(isinstance(frame.f_locals.get("self"), LightningDataModule) for frame in frames)
    lines = [] if quotes else masked(str(error)).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])


@contextmanager
def early_errors() -> Iterator[None]:
    """Give the exceptions of the block a line, as `early_reason` does; the block runs before the first post is read.

    Raises:
        LightningHpoError: Instead of any exception that has no line of its own.
    """
    try:
        yield
    except (LightningHpoError, MisconfigurationException):
        raise
    except Exception as error:
        raise LightningHpoError(early_reason(error)) from error


def config_problems(
    parse: Callable[[list[str]], Iterable[str]], arguments: Sequence[str] | Mapping[str, Any]
) -> list[str]:
    """Return all problems of a config, one line each: the flag or file and key, what it got, what would work.

    Args:
        parse: Parses arguments and returns the names of all flags, or raises `ArgumentError`.
        arguments: Command-line arguments, `--config FILE` included; or a config that is in no file.
    """
    if isinstance(arguments, Mapping):
        given = _Arguments([], {"": deepcopy(dict(arguments))}, [], [])
    else:
        given = _Arguments.of(arguments)
    if given.problems:
        return given.problems
    rejected: dict[str, tuple[str, str]] = {}
    known: Iterable[str] = ()
    while not known and len(rejected) < _MOST_PROBLEMS:
        try:
            known = parse(given.arguments())
        except ArgumentError as error:
            found = {key: (given.where(key), reason) for key, reason in _rejections(str(error)) if key not in rejected}
            rejected |= found
            removed = [given.remove(key) for key in found]
            if not found or not all(removed):
                break
    return [
        f"{where}: {reason or 'there is no such flag' + (nearest(key, known) or '; --help lists all flags')}"
        for key, (where, reason) in rejected.items()
    ]


def with_files(problems: Iterable[str], arguments: Sequence[str]) -> list[str]:
    """Return the problems, with the config file before each line about its search space, `search_space: KEY: ...`."""
    spaces = {path: config.get("search_space") for path, config in _Arguments.of(arguments).files.items()}
    return [
        next((f"{path}: " for path, space in spaces.items() if _names(line, space)), "") + line for line in problems
    ]


def _names(line: str, space: Any) -> bool:
    """Return whether a line is about a key of this search space."""
    keys = re.findall(r"(?:^search_space: |--)([\w.]+): ", line) if line.startswith("search_space: ") else []
    return isinstance(space, dict) and any(key in space for key in keys)


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean X?` for the most similar name, or an empty string if no name is similar."""
    known = list(names)
    # A flag of another group is meant, even if its full name is not similar.
    tails = [full for full in known if full.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    best = difflib.get_close_matches(name, tails, n=1, cutoff=0) or difflib.get_close_matches(
        name, known, n=1, cutoff=0.75
    )
    return f"; did you mean {best[0]}?" if best else ""


@dataclass
class _Arguments:
    """Command-line arguments from which single flags and keys can be removed."""

    command: list[str]  # the words before the first flag
    files: dict[str, dict[str, Any]]  # content of each config file, by path
    flags: list[list[str]]  # all other flags, each with its values
    problems: list[str]  # about files that cannot be read

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "_Arguments":
        """Split command-line arguments, and read the config files."""
        words = [part for word in arguments for part in (word.split("=", 1) if word.startswith("--") else [word])]
        given = cls([], {}, [], [])
        for word in words:
            if word.startswith("-") and not re.match(r"-\.?\d", word):
                given.flags.append([word])
            elif given.flags:
                given.flags[-1].append(word)
            else:
                given.command.append(word)
        for flag in [flag for flag in given.flags if flag[0] in ("--config", "-c")]:
            given.flags.remove(flag)
            path = flag[1] if len(flag) > 1 else ""
            try:
                given.files[path] = _read_yaml(path)
            except InputError as error:
                given.problems += error.problems
        return given

    def arguments(self) -> list[str]:
        """Return the remaining arguments for the parser."""
        configs = [part for config in self.files.values() for part in ("--config", yaml.safe_dump(config))]
        return [*self.command, *configs, *(word for flag in self.flags for word in flag)]

    def where(self, key: str) -> str:
        """Return the key as the user wrote it: as a flag, or as a file and a key in it."""
        if any(flag[0] == f"--{key}" for flag in self.flags):
            return f"--{key}"
        path = next((path for path, config in self.files.items() if _holder(config, key)), None)
        return f"{path}: {key}" if path else f"--{key}"

    def remove(self, key: str) -> bool:
        """Remove a key, and return whether it was there."""
        before = len(self.flags)
        self.flags = [flag for flag in self.flags if flag[0] != f"--{key}"]
        holders = [found for config in self.files.values() if (found := _holder(config, key))]
        for holder, last in holders:
            del holder[last]
        return len(self.flags) < before or bool(holders)


def _read_yaml(path: str) -> dict[str, Any]:
    if not path:
        raise InputError("--config: got no file; give the path of a YAML file")
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise InputError(
            f"--config {path}{where}: not valid YAML ({getattr(error, 'problem', 'not UTF-8 text')})"
        ) from error
    if not isinstance(loaded, dict):
        raise InputError(f"--config {path}: contains no settings; write them as `key: value` lines")
    return loaded


def _holder(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str] | None:
    """Return the dictionary with the last part of a key, and that part. `init_args` need not be in the key."""
    at: Any = config
    *path, last = key.split(".")
    for part in path:
        at = at.get(part, (at.get("init_args") or {}).get(part)) if isinstance(at, dict) else None
    if isinstance(at, dict) and last not in at:
        at = at.get("init_args")
    return (at, last) if isinstance(at, dict) and last in at else None


def _rejections(message: str) -> list[tuple[str, str]]:
    """Return the keys that an error message of the parser is about, each with the innermost reason ("" if unknown)."""
    message = re.sub(rf"(?<![\w.])({_COMMANDS})\.", "", message)
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message)).replace("init_args.", "").replace(".init_args", "")
    prefix = f"{key}." if key else ""
    unknown = re.findall(r"Option '([^']+)' is not accepted", message)
    unknown += [".".join(names) for names in re.findall(r"Group '([^']+)' does not accept option '([^']+)'", message)]
    unknown += re.findall(r"Subcommand '[^']+' does not accept option '([^']+)'", message)
    unknown += re.findall(r"Key '([^']+)' is not expected", message)
    unknown += re.findall(r"--([\w.]+)", message) if "unrecognized arguments" in message else []
    if unknown:
        return [(prefix + name, "") for name in unknown]
    missing = re.search(r"arguments? (?:are|is) required: (.+)", message)
    if missing:
        reason = "required; set it with a flag or in a --config file"
        return [(prefix + name, reason) for name in missing[1].split(", ")]
    valueless = re.match(r"argument --([\w.]+): (expected .+)", message)
    return [(valueless[1], valueless[2])] if valueless else [(key, _reason(message))]


def _reason(message: str) -> str:
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    reasons = [line for line in lines if not _NOISE.match(line)]
    reason = re.sub(r"<class '([^']+)'>", r"\1", "; ".join(reasons or lines))
    got = re.search(r"Given value: (.+)$", message)
    return f"{reason}; got {got[1]}" if got and "got" not in reason.lower() else reason
