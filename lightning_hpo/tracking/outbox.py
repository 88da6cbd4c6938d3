"""What a trial has to tell MLflow: written beside the trial first, then sent, in order and once."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning_hpo.tracking.tracker import AWAY, NEVER, Tracker, is_refusal

__all__ = ["Outbox"]

_ENTRIES = "journal.jsonl"
_STATE = "journal.json"
_TIMED = ("start_run", "log_metrics", "set_status")
_PAUSE_S = 20.0

_log = logging.getLogger(__name__)


class Outbox:
    """The entries of one trial for its run. With MLflow away they wait; a study never waits for its tracker.

    An entry keeps the time at which it was written, and MLflow takes a metric of one run, step, time and value once: so
    an entry whose answer was lost is sent again without doubling anything.

    The study's process and the trial's process write in turn, never at the same time; the study's alone sends, so that
    no training waits for MLflow.

    Args:
        folder: Folder of the trial; made when it is missing.
        tracker: MLflow's side.
        run_id: The run, where it is known from elsewhere; a `start_run` entry makes one.
        on_write: Called with every entry in the place of sending, which is left to another process.
    """

    def __init__(
        self, folder: Path, tracker: Tracker, run_id: str | None = None, on_write: Callable[[], object] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._entries, self._state = folder / _ENTRIES, folder / _STATE
        self._tracker = tracker
        self._known = run_id
        self._written = on_write or self.send
        self._lost = run_id is not None and not self._entries.exists()

    @property
    def run_id(self) -> str | None:
        """The run, once it is made."""
        return self._read_state().get("run_id") or self._known

    @property
    def begun(self) -> bool:
        """Whether a run is made, or an entry that makes it is written."""
        return self.run_id is not None or any(entry["call"] == "start_run" for entry in self._read(0))

    @property
    def pending(self) -> bool:
        """Whether there is something that MLflow has not taken yet."""
        return self._entries.exists() and self._read_state().get("sent", 0) < self._whole()

    def steps(self, metric: str) -> set[int]:
        """Steps of a metric that are written, and so will be or have been sent."""
        written = {e["step"] for e in self._read(0) if e["call"] == "log_metrics" and metric in e["metrics"]}
        run_id = self.run_id
        if self._lost and run_id is not None:
            try:
                written |= self._tracker.logged_steps(run_id, metric)
            except AWAY:
                _log.warning("%s is lost, and MLflow does not answer: a step may be written twice", self._entries)
        return written

    def write(self, call: str, **arguments: Any) -> None:
        """Write an entry down, and send what is not sent yet, unless MLflow was away a moment ago or another sends.

        Args:
            call: A method of `Tracker` that takes a run's id first, or `start_run`.
            arguments: Its other arguments; numbers, texts, and mappings of them.
        """
        self.note(call, **arguments)
        self._written()

    def note(self, call: str, **arguments: Any) -> None:
        """Write an entry down as `write` does; the next `write` or `send` sends it."""
        if call in _TIMED:
            arguments["time_ms"] = int(time.time() * 1000)
        self._append({"call": call, **arguments})

    def send(self, *, now: bool = False) -> bool:
        """Send what is not sent yet.

        Args:
            now: Try even if MLflow was away a moment ago.

        Returns:
            Whether everything is sent.
        """
        if not now and time.monotonic() - self._tracker.away_since < _PAUSE_S:
            return not self.pending
        sent = start = self._read_state().get("sent", 0)
        try:
            for entry in self._read(start):
                self._deliver(entry)
                sent = entry["end"]
            self._answers()
        except AWAY as error:
            self._does_not_answer(error)
        if sent != start:
            self._write_state({**self._read_state(), "sent": sent})
        return not self.pending

    def _answers(self) -> None:
        if self._tracker.away_since > NEVER:
            _log.warning("MLflow answers again")
        self._tracker.away_since = NEVER

    def _does_not_answer(self, error: Exception) -> None:
        if self._tracker.away_since == NEVER:
            _log.warning(
                "MLflow does not answer (%s); training goes on, and what it should get waits in %s",
                type(error).__name__,
                self.folder.parent / "trial_*" / _ENTRIES,
            )
        self._tracker.away_since = time.monotonic()

    def close(self) -> None:
        """Remove the outbox of a trial that is over, once all is sent."""
        if not self.pending:
            self.discard()

    def discard(self) -> None:
        """Forget everything: the run that it was for is gone."""
        self._entries.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def _deliver(self, entry: Mapping[str, Any]) -> None:
        arguments = {key: value for key, value in entry.items() if key not in ("call", "end")}
        if entry["call"] == "start_run":
            self._start_run(arguments)
            return
        try:
            getattr(self._tracker, entry["call"])(self.run_id, **arguments)
        except AWAY as error:
            if not is_refusal(error):
                raise
            _log.warning("MLflow refused %s of run %s: %s", entry["call"], self.run_id, type(error).__name__)

    def _start_run(self, arguments: Mapping[str, Any]) -> None:
        state = self._read_state()
        if self.run_id is not None:
            return
        # Only if an earlier attempt may have made it without our hearing of it.
        run_id = (
            self._tracker.find_run(arguments["experiment_id"], arguments["tags"]) if state.get("starting") else None
        )
        if run_id is None:
            self._write_state({**state, "starting": True})
            run_id = self._tracker.start_run(**arguments)
        self._write_state({**state, "run_id": run_id})

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self._entries.open("a+b") as file:
            file.truncate(self._whole())
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _whole(self) -> int:
        """Where the last whole line ends: a process may have died within one."""
        return self._entries.read_bytes().rfind(b"\n") + 1

    def _read(self, start: int) -> Iterator[dict[str, Any]]:
        """The entries behind a place in the file, each with the place of its end."""
        if not self._entries.exists():
            return
        with self._entries.open("rb") as file:
            end = file.seek(start)
            for line in file.readlines():
                end += len(line)
                if line.endswith(b"\n"):
                    yield {**json.loads(line), "end": end}

    def _read_state(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return state

    def _write_state(self, state: Mapping[str, Any]) -> None:
        partial = self._state.with_suffix(".partial")
        partial.write_text(json.dumps(state), encoding="utf-8")
        partial.replace(self._state)
