"""Entries of one trial for MLflow, and the file in which they wait."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from io import BytesIO
from typing import Any, get_args, get_origin, get_type_hints

from lightning_hpo.study_folder import TrialFolder, make_folder, read_file, sync_folder, write_whole

__all__ = [
    "ENTRY_NAMES",
    "Entry",
    "EntryFile",
    "LogConfig",
    "LogMetrics",
    "LogParams",
    "LogText",
    "SetStatus",
    "StartRun",
    "has_valid_fields",
]


def _now_ms() -> int:
    return int(time.time() * 1000)


@dataclass(frozen=True)
class StartRun:
    """Create the trial's run."""

    experiment_id: str
    name: str
    tags: Mapping[str, str]
    time_ms: int = field(default_factory=_now_ms)


@dataclass(frozen=True)
class LogParams:
    """Log parameters."""

    params: Mapping[str, Any]


@dataclass(frozen=True)
class LogConfig:
    """Log the resolved config, as a mapping and as YAML text."""

    config: Mapping[str, Any]
    text: str


@dataclass(frozen=True)
class LogText:
    """Log a text file."""

    text: str
    name: str


@dataclass(frozen=True)
class LogMetrics:
    """Log metrics of one step, an epoch."""

    metrics: Mapping[str, float]
    step: int
    time_ms: int = field(default_factory=_now_ms)


@dataclass(frozen=True)
class SetStatus:
    """Set the run's status, with tags."""

    status: str
    tags: Mapping[str, str]
    time_ms: int = field(default_factory=_now_ms)


Entry = StartRun | LogParams | LogConfig | LogText | LogMetrics | SetStatus
_ENTRIES: dict[str, type[Entry]] = {
    "start_run": StartRun,
    "log_params": LogParams,
    "log_config": LogConfig,
    "log_text": LogText,
    "log_metrics": LogMetrics,
    "set_status": SetStatus,
}
"""Entry for each name on disk."""
ENTRY_NAMES = {kind: name for name, kind in _ENTRIES.items()}
"""Name on disk of each entry."""


_DAMAGED = {"starting": True}
_STATE: dict[str, Any] = {
    **dict.fromkeys(("starting", "restarted", "lost"), bool),
    **{"run_id": str, "sent": int, "waiting": list},
}
"""Type of each value of the state."""


class EntryFile:
    """Entries on disk, one line each, and the state of their sending.

    Args:
        folder: Folder of the trial; created if it is missing.
    """

    def __init__(self, folder: TrialFolder) -> None:
        make_folder(folder.path)
        self.path, self._state = folder.outbox, folder.outbox_state

    @property
    def whole(self) -> int:
        """Offset after the last whole line; a process may have been killed while writing one."""
        return self._content.rfind(b"\n") + 1

    @property
    def _content(self) -> bytes:
        try:
            return read_file(self.path)
        except (FileNotFoundError, ValueError):  # the former also if another thread removes what has been sent
            return b""

    def read(self, start: int = 0) -> Iterator[tuple[Entry, int]]:
        """Yield the entries after an offset, each with the offset of its end."""
        end = start
        for line in BytesIO(self._content[start:]):
            end += len(line)
            if line.endswith(b"\n") and (entry := _entry(line)) is not None:
                yield entry, end

    def append(self, entry: Entry) -> None:
        """Write an entry to the disk."""
        is_new = not self.path.exists()
        with self.path.open("a+b") as file:
            file.truncate(self.whole)
            file.write(_line(entry).encode())
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self.path.parent)

    def replace(self, entries: Sequence[Entry]) -> None:
        """Replace all entries by others."""
        write_whole(self.path, "".join(map(_line, entries)))

    def read_state(self) -> dict[str, Any]:
        """Return the state of the sending; empty if nothing has been sent.

        If a power cut has damaged it, everything is sent again, which changes nothing. The run may exist.
        """
        try:
            state = json.loads(read_file(self._state))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            return dict(_DAMAGED)
        return state if _is_state(state) else dict(_DAMAGED)

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Write the state of the sending."""
        write_whole(self._state, json.dumps(state))

    def remove(self) -> None:
        """Remove the entries and their state."""
        self.path.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)


def _entry(line: bytes) -> Entry | None:
    """Return the entry of a line, or None if it is damaged. If a power cut has, `append` has not returned."""
    try:
        fields: dict[str, Any] = json.loads(line)
        entry = _ENTRIES[fields.pop("call")](**fields)
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return None
    return entry if has_valid_fields(entry) else None


def has_valid_fields(instance: Any) -> bool:
    """Return whether the fields of a dataclass that was read from a file have their types."""
    values, hints = vars(instance), get_type_hints(type(instance))
    return all(_is_valid(values[name], hint) for name, hint in hints.items())


def _is_valid(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Mapping:
        # A tag may be a number: MLflow gets its text.
        kind = {Any: object, str: str | float | int}.get(get_args(hint)[1], float)
        return isinstance(value, dict) and all(_is_valid(each, kind) for each in value.values())
    return isinstance(value, hint) or (hint is float and type(value) is int)


def _is_state(state: Any) -> bool:
    if not isinstance(state, dict) or not all(type(value) is _STATE.get(name) for name, value in state.items()):
        return False
    places = [state.get("sent", 0), *state.get("waiting", [])]
    return all(type(place) is int and place >= 0 for place in places)


def _line(entry: Entry) -> str:
    return json.dumps({"call": ENTRY_NAMES[type(entry)], **asdict(entry)}) + "\n"
