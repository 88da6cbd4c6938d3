"""Registration of a soup or an ensemble of the seeds that a refit has trained.

Each has an MLflow run below that of the refit, and an entry in an attribute of the refit in Optuna. The run is RUNNING
until the entry is stored and the model is registered. A run that a killed command has left without an entry is deleted
by the next call.
"""

import json
import math
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.refit.combination import Combination, Combined, Kind, combine
from lightning_hpo.refit.members import Member, find_members, find_refit, seeds_with_weights
from lightning_hpo.refit.result import RefitResult, steps_text
from lightning_hpo.registry.register import register_verified
from lightning_hpo.registry.scored_model import ScoredModel
from lightning_hpo.registry.verify import verify
from lightning_hpo.storage.attributes import StudyKey, experiment_name, folder_of
from lightning_hpo.storage.objective import Objective
from lightning_hpo.storage.studies import StudyDatabase
from lightning_hpo.study.lines import waiting
from lightning_hpo.study.lock import lock_models
from lightning_hpo.study.workers import ProcessExit, Workers
from lightning_hpo.study_folder import TrialFolder, make_folder
from lightning_hpo.tracking.logged_models import delete_models_of, find_model
from lightning_hpo.tracking.study_run import study_run
from lightning_hpo.tracking.tracker import AWAY, PARENT, Tracker
from lightning_hpo.trial.config import config_digest, has_config

__all__ = ["register_combined"]

_KIND = "combined"
"""Tag of a run and of a version: soup or ensemble."""

_Entry = Mapping[str, Any]


def register_combined(
    kind: Kind, name: str, database: StudyDatabase, tracker: Tracker, workers: Workers, *, promote: bool | None = None
) -> list[str]:
    """Combine the seeds of a refit's winner, verify the result in a new process, and register it as any other model.

    A further call with the same seeds verifies the same model again. `update_alias` explains `promote`.

    Args:
        kind: soup or ensemble.
        name: Name of the study, or of its refit.
        database: Optuna's database.
        tracker: MLflow's side of the refit.
        workers: Processes for the work.
        promote: Whether to move the alias; None if the model is an improvement.

    Returns:
        Lines that state what was done.

    Raises:
        InputError: If there is no complete refit, or fewer than two of its seeds can be combined.
        LightningHpoError: If they cannot be combined, or verification fails. Nothing is registered then.
    """
    job = _Job(kind, find_refit(database, name, f"--{kind}"), tracker, workers)
    with lock_models(folder_of(job.result.study), wait=True):  # `refit` deletes no weights meanwhile
        entry = job.stored() or job.make()
        registered = register_verified(job.model(entry), entry["model_uri"], tracker, promote=promote)
        tracker.set_status(entry["run_id"], "FINISHED", {})
    return [steps_text(kind, entry, job.result.monitor), registered]


@dataclass(frozen=True)
class _Job:
    """A soup or an ensemble of a refit, to be made or found."""

    kind: Kind
    result: RefitResult
    tracker: Tracker
    workers: Workers

    @property
    def folder(self) -> TrialFolder:
        return folder_of(self.result.study).combined(self.kind)

    def stored(self) -> _Entry | None:
        """Return the verified entry of an earlier call, if its model exists and there are no further seeds."""
        entry: _Entry | None = self.result.models.get(self.kind)
        if entry is None or entry["trial"] != self.result.winner.trial or not self._has_own_config(entry):
            return None
        further = {member.seed for member in seeds_with_weights(self.result)} - set(entry["offered"])
        logged = self.tracker.run(entry["run_id"]) and find_model(self.tracker, entry["model_uri"])
        if further or not logged:
            return None
        self._verify(entry)
        return entry

    def _has_own_config(self, entry: _Entry) -> bool:
        return has_config(self.folder, entry.get("config_digest"))

    def make(self) -> _Entry:
        """Combine the seeds, verify the result, and store its entry with the refit."""
        members = find_members(self.result, self.tracker, f"--{self.kind}")
        make_folder(self.folder.path)
        run_id = self._start_run()
        try:
            entry = self._entry(members, run_id, self._combined(members, run_id))
            self._verify(entry)
        except BaseException:
            self.workers.kill()
            with suppress(*AWAY):  # then the next call does it
                self._discard(run_id)
            raise
        study = self.result.study
        study.set_user_attr(StudyKey.REFIT_MODELS, {**self.result.models, self.kind: entry})
        return entry

    def _start_run(self) -> str:
        """Create the run of the model, and delete runs that earlier calls have left unfinished."""
        study, tracker = self.result.study, self.tracker
        agent, study_id = study.user_attrs[StudyKey.AGENT], study.user_attrs.get(StudyKey.ID)
        experiment = tracker.experiment(experiment_name(agent, study.study_name))
        tags = {"agent": agent, _KIND: self.kind, **({} if study_id is None else {StudyKey.ID: study_id})}
        had = self.result.models.get(self.kind, {}).get("run_id")
        for run in list(tracker.runs(experiment, "RUNNING")):
            if run.run_id != had and tags.items() <= run.tags.items():
                self._discard(run.run_id)
        parent = study_run(tracker, experiment, study.study_name, agent, name="refit", study_id=study_id)
        return tracker.start_run(experiment, self.kind, {**tags, PARENT: parent})

    def _discard(self, run_id: str) -> None:
        delete_models_of(self.tracker, run_id)
        self.tracker.delete_run(run_id)

    def _combined(self, members: list[Member], run_id: str) -> Combined:
        study = self.result.study
        task = Combination(
            kind=self.kind,
            members=members,
            folder=self.folder,
            objective=Objective.of(study),
            data_fingerprint=study.user_attrs[StudyKey.DATA_FINGERPRINT],
            run_id=run_id,
            tracking_uri=self.tracker.uri,
        )
        with waiting(f"{self.kind}: scoring {len(members)} seeds of trial {self.result.winner.trial} in a new process"):
            found: Combined | str | ProcessExit = self.workers.call(combine, task, log=self.folder.log)
        if isinstance(found, Combined):
            self.tracker.log_metrics(run_id, _finite(found.metrics), step=0, time_ms=time.time_ns() // 1_000_000)
            return found
        problem = found if isinstance(found, str) else f"{found.reason}; see {self.folder.log}"
        raise LightningHpoError(f"--{self.kind}: {study.study_name}: {problem}")

    def _entry(self, members: list[Member], run_id: str, found: Combined) -> _Entry:
        """Return what Optuna stores of the model; JSON must be able to hold it."""
        steps = [asdict(step) | {"score": step.score if math.isfinite(step.score) else None} for step in found.steps]
        return {
            "trial": self.result.winner.trial,
            "config_digest": config_digest(self.folder.config.read_text(encoding="utf-8")),
            "offered": [member.seed for member in members],
            "seeds": list(found.seeds),
            "steps": steps,
            "value": found.metrics[self.result.monitor],
            "collapsed": found.metrics.get("val_constant") == 1.0,
            "run_id": run_id,
            "model_uri": found.model_uri,
            "seal": found.seal,
        }

    def model(self, entry: _Entry) -> ScoredModel:
        """Return the model of an entry."""
        origin = {
            _KIND: self.kind,
            "trial": str(entry["trial"]),
            "seeds": ", ".join(map(str, entry["seeds"])),
            "steps": json.dumps(entry["steps"]),
        }
        return ScoredModel(
            study=self.result.study,
            folder=self.folder,
            run_id=entry["run_id"],
            value=entry["value"],
            collapsed=entry["collapsed"],
            seal=entry["seal"],
            origin=origin,
            flags=f"--{self.kind}",
        )

    def _verify(self, entry: _Entry) -> None:
        with waiting(f"{self.kind}: verifying the model in a new process"):
            problem = verify(self.model(entry), entry["model_uri"], self.tracker, self.workers)
        if problem:
            raise LightningHpoError(
                f"--{self.kind}: verification of {entry['model_uri']} failed, so no alias is moved: {problem}"
            )


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
