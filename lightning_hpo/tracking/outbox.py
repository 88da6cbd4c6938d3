"""Entries of one trial for MLflow: written to disk first, then sent in order and once."""

import logging
import time
from collections.abc import Callable, Sequence

from lightning_hpo.databases import masked
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.entries import (
    ENTRY_NAMES,
    Entry,
    EntryFile,
    LogConfig,
    LogMetrics,
    LogParams,
    LogText,
    SetStatus,
    StartRun,
)
from lightning_hpo.tracking.errors import ArtifactError, cause_of, is_invalid
from lightning_hpo.tracking.tracker import AWAY, NEVER, Tracker

__all__ = ["Outbox"]

_PAUSE_S = 20.0

_log = logging.getLogger(__name__)


class Outbox:
    """Entries of one trial for its run. They stay on disk until MLflow has accepted them; no training waits for MLflow.

    An entry keeps the time at which it was written, and MLflow stores a metric of one run, step, time and value once.
    So an entry whose reply was lost is sent again without doubling anything.

    The study process and the trial process write in turn, never at the same time. Only the study process sends.

    Args:
        folder: Folder of the trial; created if it is missing.
        tracker: MLflow's side of the study.
        run_id: The run, if it exists; a `StartRun` entry creates one.
        on_write: Called for each entry instead of sending it, where another process sends.
    """

    def __init__(
        self,
        folder: TrialFolder,
        tracker: Tracker,
        run_id: str | None = None,
        on_write: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self._file = EntryFile(folder)
        self._tracker = tracker
        self._known = run_id
        self._on_write = on_write
        self._lost = run_id is not None and not self._file.path.exists()
        self._refused_at = NEVER

    @property
    def run_id(self) -> str | None:
        """The run, or None if it has not been created yet."""
        state = self._file.read_state()
        return state.get("run_id") or (None if state.get("restarted") else self._known)

    @property
    def begun(self) -> bool:
        """Whether the run exists or an entry that creates it has been written."""
        return self.run_id is not None or any(isinstance(entry, StartRun) for entry, _ in self._file.read())

    @property
    def pending(self) -> bool:
        """Whether MLflow has not accepted all entries yet."""
        if not self._file.path.exists():
            return False
        state = self._file.read_state()
        return bool(state.get("waiting")) or state.get("sent", 0) < self._file.whole

    def unsent(self) -> list[Entry]:
        """Return the entries that MLflow has not accepted."""
        state = self._file.read_state()
        return [entry for entry, _ in self._to_send(state.get("sent", 0), state.get("waiting", []))]

    def steps(self, metric: str) -> set[int]:
        """Return the steps of a metric that have been written, sent or not."""
        entries = [entry for entry, _ in self._file.read()]
        written = {entry.step for entry in entries if isinstance(entry, LogMetrics) and metric in entry.metrics}
        run_id = self.run_id
        if self._lost and run_id is not None:
            try:
                written |= self._tracker.logged_steps(run_id, metric)
            except AWAY as error:
                _log.warning("%s is missing, MLflow %s: a step may be logged twice", self._file.path, cause_of(error))
        return written

    def write(self, entry: Entry) -> None:
        """Write an entry, then send everything unsent, unless MLflow was away a moment ago or another process sends."""
        self.append(entry)
        if self._on_write is None:
            self.send()
        else:
            self._on_write()

    def append(self, entry: Entry) -> None:
        """Write an entry without sending it; the next `write` or `send` sends it."""
        self._file.append(entry)

    def send(self, *, now: bool = False) -> bool:
        """Send everything unsent, with `now` even if MLflow was away a moment ago. Return whether all is accepted.

        An artifact that is not accepted waits, and the entries after it are sent. It is tried again later.
        """
        if not now and time.monotonic() - self._tracker.away_since < _PAUSE_S:
            return not self.pending
        before = self._file.read_state()
        sent, waiting = before.get("sent", 0), list(before.get("waiting", []))
        retries = now or time.monotonic() - self._refused_at >= _PAUSE_S
        try:
            for entry, end in self._to_send(sent, waiting if retries else []):
                accepted = self._send(entry)
                if accepted and end in waiting:
                    waiting.remove(end)
                elif not accepted and end not in waiting:
                    waiting.append(end)
                sent = max(sent, end)
            self._mark_reachable()
        except AWAY as error:
            self._mark_away(error)
        if (sent, waiting) != (before.get("sent", 0), before.get("waiting", [])):
            self._file.write_state({**self._file.read_state(), "sent": sent, "waiting": waiting})
        return not self.pending

    def _to_send(self, sent: int, waiting: list[int]) -> list[tuple[Entry, int]]:
        """Return the entries that end at the given offsets, and those after `sent`."""
        earlier = [(entry, end) for entry, end in self._file.read() if end in waiting] if waiting else []
        return [*earlier, *self._file.read(sent)]

    def close(self) -> None:
        """Remove the outbox of a finished trial once everything has been sent."""
        if not self.pending:
            self.discard()

    def restart(self) -> bool:
        """Forget the run, which has been deleted, so that all entries are sent to a new one.

        Returns:
            Whether the entries are complete; if not, nothing is changed.
        """
        first = next((entry for entry, _ in self._file.read()), None)
        if not isinstance(first, StartRun):
            return False
        self._file.write_state({"restarted": True})
        return True

    def rewrite(self, entries: Sequence[Entry]) -> None:
        """Replace all entries by others, the first of which creates a new run."""
        self._file.write_state({"restarted": True})
        self._file.replace(entries)

    def discard(self) -> None:
        """Remove all entries."""
        self._file.remove()

    def _mark_reachable(self) -> None:
        if self._tracker.away_since > NEVER:
            _log.warning("MLflow accepts entries again")
        self._tracker.away_since, self._tracker.problem = NEVER, ""

    def _mark_away(self, error: Exception) -> None:
        self._tracker.problem = cause_of(error)
        if self._tracker.away_since == NEVER:
            _log.warning(
                "MLflow %s; training continues, and the entries for MLflow are kept in %s",
                self._tracker.problem,
                self.folder.path.parent / "trial_*" / self._file.path.name,
            )
        self._tracker.away_since = time.monotonic()

    def _send(self, entry: Entry) -> bool:
        """Send an entry. Return False if this entry has to wait, and the next ones need not."""
        if isinstance(entry, StartRun):
            self._start_run(entry)
            return True
        run_id = self.run_id
        if run_id is None:
            raise RuntimeError(f"{self._file.path}: an entry precedes the one that creates the run")
        try:
            self._call(run_id, entry)
        except AWAY as error:
            if is_invalid(error):
                self._tracker.require_active(run_id)
                _log.warning(
                    "MLflow refused %s of run %s: %s", ENTRY_NAMES[type(entry)], run_id, masked(_first_line(error))
                )
                return True
            if not isinstance(error, ArtifactError):
                raise
            if not self._tracker.artifact_problem:
                _log.warning(
                    "MLflow: %s; metrics and parameters are sent, and the artifacts wait in %s", error, self._file.path
                )
            self._tracker.artifact_problem, self._refused_at = str(error), time.monotonic()
            return False
        if isinstance(entry, LogConfig | LogText):
            self._tracker.artifact_problem = ""
        return True

    def _call(self, run_id: str, entry: Entry) -> None:
        match entry:
            case LogParams(params):
                self._tracker.log_params(run_id, params)
            case LogConfig(config, text):
                self._tracker.log_config(run_id, config, text)
            case LogText(text, name):
                self._tracker.log_text(run_id, text, name)
            case LogMetrics(metrics, step, time_ms):
                self._tracker.log_metrics(run_id, metrics, step, time_ms)
            case SetStatus(status, tags, time_ms):
                self._tracker.set_status(run_id, status, tags, time_ms)

    def _start_run(self, entry: StartRun) -> None:
        if self.run_id is not None:
            return
        state = self._file.read_state()
        # Only an earlier attempt whose reply was lost may have created the run.
        run_id = self._tracker.find_run(entry.experiment_id, entry.tags) if state.get("starting") else None
        if run_id is None:
            self._file.write_state({**state, "starting": True})
            run_id = self._tracker.start_run(entry.experiment_id, entry.name, entry.tags, entry.time_ms)
        self._file.write_state({**state, "run_id": run_id})


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
