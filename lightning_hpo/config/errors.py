"""Every error of a config in one go.

The parser stops at the first; so what it refuses is taken out, and it is asked again.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError

from lightning_hpo.exceptions import InputError

__all__ = ["config_problems", "nearest", "with_files"]

_MOST = 20
_COMMANDS = "fit|validate|test|predict"
_NOISE = re.compile(
    r"(Parser key|Does not validate|Subtypes|Errors|Given value|Problem with given|Problems parsing|Expected a path but"
    r"|Expected a <class 'NoneType'>)"
)


def config_problems(
    parse: Callable[[list[str]], Iterable[str]], arguments: Sequence[str] | Mapping[str, Any]
) -> list[str]:
    """What is wrong with a config, a line each: the flag or file and key, what it got, what would work.

    Args:
        parse: Parses arguments and gives the names of all flags, or raises `ArgumentError`.
        arguments: As on the command line, with `--config FILE` among them; or a config that stands in no file.
    """
    given = (
        _Given([], {"": deepcopy(dict(arguments))}, [], []) if isinstance(arguments, Mapping) else _Given.of(arguments)
    )
    if given.problems:
        return given.problems
    refused: list[tuple[str, str]] = []
    known: Iterable[str] = ()
    while not known and len(refused) < _MOST:
        try:
            known = parse(given.arguments())
        except ArgumentError as error:
            told = {where.removeprefix("--").rsplit(": ", 1)[-1] for where, _ in refused}
            found = [(key, reason) for key, reason in _refusals(str(error)) if key not in told]
            refused += [(given.where(key), reason) for key, reason in found]
            removed = [given.remove(key) for key, _ in found]
            if not found or not all(removed):
                break
    return [_line(where, reason, known) for where, reason in refused]


def with_files(problems: Iterable[str], arguments: Sequence[str]) -> list[str]:
    """The same lines, each that is about a key of the search space behind the file that holds it.

    Args:
        problems: Lines, such as `search_space: model.lr: ...`.
        arguments: As on the command line, with `--config FILE` among them.
    """
    spaces = {path: config.get("search_space") for path, config in _Given.of(arguments).files.items()}
    return [
        next((f"{path}: " for path, space in spaces.items() if _names(line, space)), "") + line for line in problems
    ]


def _names(line: str, space: Any) -> bool:
    """Whether a line is about a key of this search space."""
    keys = re.findall(r"(?:^search_space: |--)([\w.]+): ", line) if line.startswith("search_space: ") else []
    return isinstance(space, dict) and any(key in space for key in keys)


def nearest(name: str, names: Iterable[str]) -> str:
    """A phrase that offers the nearest of the names, or nothing when none is near."""
    known = list(names)
    # A flag that stands in another group is not near by its letters.
    tails = [full for full in known if full.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]]
    best = difflib.get_close_matches(name, tails, n=1, cutoff=0) or difflib.get_close_matches(
        name, known, n=1, cutoff=0.75
    )
    return f"; did you mean {best[0]}?" if best else ""


@dataclass
class _Given:
    command: list[str]
    files: dict[str, dict[str, Any]]
    flags: list[list[str]]
    problems: list[str]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "_Given":
        """Take the arguments apart, and read the files."""
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
            given._read(flag[1] if len(flag) > 1 else "")
        return given

    def _read(self, path: str) -> None:
        try:
            self.files[path] = _read_yaml(path)
        except InputError as error:
            self.problems += error.problems

    def arguments(self) -> list[str]:
        """What is left, for the parser."""
        configs = [part for config in self.files.values() for part in ("--config", yaml.safe_dump(config))]
        return [*self.command, *configs, *(word for flag in self.flags for word in flag)]

    def where(self, key: str) -> str:
        """The key as the user wrote it: a flag, or a file with its key."""
        if any(flag[0] == f"--{key}" for flag in self.flags):
            return f"--{key}"
        path = next((path for path, config in self.files.items() if _holder(config, key)), None)
        return f"{path}: {key}" if path else f"--{key}"

    def remove(self, key: str) -> bool:
        """Take a key out; whether it was there."""
        before = len(self.flags)
        self.flags = [flag for flag in self.flags if flag[0] != f"--{key}"]
        holders = [found for config in self.files.values() if (found := _holder(config, key))]
        for lock_holder, last in holders:
            del lock_holder[last]
        return len(self.flags) < before or bool(holders)


def _read_yaml(path: str) -> dict[str, Any]:
    if not path:
        raise InputError("--config: no file is named")
    try:
        loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"--config {path}{where}: not YAML ({getattr(error, 'problem', 'unreadable')})") from error
    if not isinstance(loaded, dict):
        raise InputError(f"--config {path}: holds no settings; a config is made of `key: value` lines")
    return loaded


def _holder(config: dict[str, Any], key: str) -> tuple[dict[str, Any], str] | None:
    """The dictionary that holds the last part of a key, looked for also below `init_args`."""
    at: Any = config
    *path, last = key.split(".")
    for part in path:
        at = at.get(part, (at.get("init_args") or {}).get(part)) if isinstance(at, dict) else None
    if isinstance(at, dict) and last not in at:
        at = at.get("init_args")
    return (at, last) if isinstance(at, dict) and last in at else None


def _refusals(message: str) -> list[tuple[str, str]]:
    """The keys that a message of the parser is about, each with the reason; the innermost key and reason are told."""
    message = re.sub(rf"(?<![\w.])({_COMMANDS})\.", "", message)
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message)).replace("init_args.", "").replace(".init_args", "")
    unknown = re.findall(r"Option '([^']+)' is not accepted", message)
    unknown += [".".join(names) for names in re.findall(r"Group '([^']+)' does not accept option '([^']+)'", message)]
    unknown += re.findall(r"Subcommand '[^']+' does not accept option '([^']+)'", message)
    unknown += re.findall(r"Key '([^']+)' is not expected", message)
    unknown += re.findall(r"--([\w.]+)", message) if "unrecognized arguments" in message else []
    if unknown:
        return [(f"{key}.{name}" if key else name, "unknown") for name in unknown]
    missing = re.search(r"arguments? (?:are|is) required: (.+)", message)
    if missing:
        return [(f"{key}.{name}" if key else name, "is needed") for name in missing[1].split(", ")]
    valueless = re.match(r"argument --([\w.]+): (expected .+)", message)
    return [(valueless[1], valueless[2])] if valueless else [(key, _reason(message))]


def _reason(message: str) -> str:
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    telling = [line for line in lines if not _NOISE.match(line)]
    reason = re.sub(r"<class '([^']+)'>", r"\1", "; ".join(telling or lines))
    got = re.search(r"Given value: (.+)$", message)
    return f"{reason}; got {got[1]}" if got and "got" not in reason.lower() else reason


def _line(where: str, reason: str, known: Iterable[str]) -> str:
    if reason != "unknown":
        return f"{where}: {reason}"
    name = where.removeprefix("--").rsplit(": ", 1)[-1]
    return f"{where}: there is no such flag{nearest(name, known)}"
