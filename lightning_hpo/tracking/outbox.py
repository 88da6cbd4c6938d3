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
from lightning_hpo.tracking.errors import ArtifactError, cause_of, is_invalid, is_missing
from lightning_hpo.tracking.tracker import AWAY, NEVER, PAUSE_S, Tracker

__all__ = ["Outbox"]

_log = logging.getLogger(__name__)


class Outbox:
    """Entries of one trial for its run. They stay on disk until MLflow has accepted them; no training waits for MLflow.

    An entry keeps the time at which it was written, and MLflow stores a metric of one run, step, time and value once.
    So an entry whose reply was lost is sent again without doubling anything.

    Only the study process writes, and one thread of it sends. If the entries have been lost, those that the run has
    already are left out.

    Args:
        folder: Folder of the trial; created if it is missing.
        tracker: MLflow's side of the study.
        run_id: The run, if it exists; a `StartRun` entry creates one.
        on_write: Called for each entry instead of sending it, where another thread sends.

    Attributes:
        problem: Why MLflow has not accepted all entries at the last attempt, as a clause.
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
        self.tracker = tracker
        self._known = run_id
        self._on_write = on_write
        self._logged: dict[str, set[int]] = {}
        """Steps of a metric that the run had before; read for lost entries only."""
        self._refused_at = NEVER
        self.problem = ""

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
        whole = self._file.whole
        if not whole:
            return False
        state = self._file.read_state()
        return bool(state.get("waiting")) or state.get("sent", 0) < whole

    def unsent(self) -> list[Entry]:
        """Return the entries that MLflow has not accepted."""
        state = self._file.read_state()
        return [entry for entry, _ in self._to_send(state.get("sent", 0), state.get("waiting", []))]

    def steps(self, metric: str) -> set[int]:
        """Return the steps of a metric that have been written, sent or not."""
        entries = [entry for entry, _ in self._file.read()]
        return {entry.step for entry in entries if isinstance(entry, LogMetrics) and metric in entry.metrics}

    def write(self, entry: Entry) -> None:
        """Write an entry, then send everything unsent, unless MLflow was away a moment ago or `on_write` is given."""
        if self._known is not None and not self._file.path.exists():
            state = self._file.read_state()
            kept = {key: value for key, value in state.items() if key in ("run_id", "restarted")}
            self._file.write_state(kept | {"lost": True})
        self._file.append(entry)
        if self._on_write is None:
            self.send()
        else:
            self._on_write()

    def send(self, *, now: bool = False) -> bool:
        """Send everything unsent, with `now` even if MLflow was away a moment ago. Return whether all is accepted.

        An artifact that is not accepted waits, and the entries after it are sent. It is tried again later.
        """
        if not now and self.tracker.is_away:
            return not self.pending
        before = self._file.read_state()
        sent, waiting = before.get("sent", 0), list(before.get("waiting", []))
        retries = now or time.monotonic() - self._refused_at >= PAUSE_S
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
            if is_missing(error):  # the entries of other runs are accepted
                self._mark_missing(error)
            else:
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
        if self.tracker.away_since > NEVER:
            _log.warning("MLflow accepts entries again")
        self.tracker.away_since, self.tracker.problem = NEVER, ""

    def _mark_missing(self, error: Exception) -> None:
        if not self.problem:
            _log.warning("MLflow %s; its entries are kept in %s", cause_of(error), self._file.path)
        self.problem = self.tracker.problem = cause_of(error)

    def _mark_away(self, error: Exception) -> None:
        self.problem = self.tracker.problem = cause_of(error)
        if self.tracker.away_since == NEVER:
            _log.warning(
                "MLflow %s; training continues, and the entries for MLflow are kept in %s",
                self.tracker.problem,
                self.folder.path.parent / "trial_*" / self._file.path.name,
            )
        self.tracker.away_since = time.monotonic()

    def _send(self, entry: Entry) -> bool:
        """Send an entry. Return False if this entry has to wait, and the next ones need not."""
        if isinstance(entry, StartRun):
            self._start_run(entry)
            return True
        run_id = self.run_id
        if run_id is None:
            raise RuntimeError(f"{self._file.path}: an entry precedes the one that creates the run")
        try:
            _log_entry(self.tracker, run_id, self._without_logged(entry, run_id))
        except AWAY as error:
            if is_invalid(error):
                self.tracker.require_active(run_id)
                _log.warning(
                    "MLflow refused %s of run %s: %s", ENTRY_NAMES[type(entry)], run_id, masked(_first_line(error))
                )
                return True
            if not isinstance(error, ArtifactError):
                raise
            if not self.tracker.artifact_problem:
                _log.warning(
                    "MLflow: %s; metrics and parameters are sent, and the artifacts wait in %s", error, self._file.path
                )
            self.problem = self.tracker.artifact_problem = str(error)
            self._refused_at = time.monotonic()
            return False
        if isinstance(entry, LogConfig | LogText):
            self.tracker.artifact_problem = ""
        return True

    def _without_logged(self, entry: Entry, run_id: str) -> Entry:
        """Return an entry without metrics that the run has at its step, if earlier entries have been lost."""
        if not isinstance(entry, LogMetrics) or not self._file.read_state().get("lost"):
            return entry
        for name in entry.metrics.keys() - self._logged.keys():
            self._logged[name] = self.tracker.logged_steps(run_id, name)
        new = {name: value for name, value in entry.metrics.items() if entry.step not in self._logged[name]}
        return LogMetrics(new, entry.step, entry.time_ms)

    def _start_run(self, entry: StartRun) -> None:
        if self.run_id is not None:
            return
        state = self._file.read_state()
        # Only an earlier attempt whose reply was lost may have created the run.
        run_id = self.tracker.find_run(entry.experiment_id, entry.tags) if state.get("starting") else None
        if run_id is None:
            self._file.write_state({**state, "starting": True})
            run_id = self.tracker.start_run(entry.experiment_id, entry.name, entry.tags, entry.time_ms)
        self._file.write_state({**state, "run_id": run_id})


def _log_entry(tracker: Tracker, run_id: str, entry: Entry) -> None:
    match entry:
        case LogParams(params):
            tracker.log_params(run_id, params)
        case LogConfig(config, text):
            tracker.log_config(run_id, config, text)
        case LogText(text, name):
            tracker.log_text(run_id, text, name)
        case LogMetrics(metrics, step, time_ms):
            tracker.log_metrics(run_id, metrics, step, time_ms)
        case SetStatus(status, tags, time_ms):
            tracker.set_status(run_id, status, tags, time_ms)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
