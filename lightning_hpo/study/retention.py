"""Deletion of checkpoints and models that are no longer needed."""

import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import optuna
from optuna.trial import TrialState

from lightning_hpo.storage.attributes import StudyKey, TrialKey, folder_of
from lightning_hpo.storage.objective import Objective
from lightning_hpo.storage.studies import ranked
from lightning_hpo.study.callback import StudyCallback
from lightning_hpo.study.lock import lock_models
from lightning_hpo.tracking.logged_models import delete_model
from lightning_hpo.tracking.tracker import AWAY, Tracker
from lightning_hpo.trial.outcome import Outcome

__all__ = ["CheckpointRetention", "unneeded_checkpoints"]


def unneeded_checkpoints(study: optuna.Study, *, complete: bool = False) -> Iterator[Path]:
    """Yield the checkpoints to delete: those of finished trials, except the best epoch's of complete ones.

    Reconciliation deletes them. They must be those that `CheckpointRetention` deletes when trials end.

    Those of failed trials are needed until the study is complete: somebody may want to know why they failed.

    Args:
        study: The study.
        complete: Whether it is complete; otherwise its attributes tell.
    """
    states = {trial.number: trial.state for trial in study.get_trials(deepcopy=False)}
    needs_failed = not (complete or _is_complete(study, states.values()))
    for folder in folder_of(study).trials():
        state = states.get(folder.number)
        if state is None or not state.is_finished() or (needs_failed and state == TrialState.FAIL):
            continue
        for path in sorted((folder.best, *folder.resume_files)):  # other files are the user's
            if path.exists() and (state != TrialState.COMPLETE or path != folder.best):
                yield path
        if state != TrialState.COMPLETE or not folder.best.exists():
            yield from sorted(path for path in folder.checkpoints.rglob("*") if path.is_file())


def _is_complete(study: optuna.Study, states: Iterable[TrialState]) -> bool:
    attributes = study.user_attrs
    done = sum(state in (TrialState.COMPLETE, TrialState.PRUNED) for state in states)
    return bool(attributes.get(StudyKey.EXHAUSTED)) or done >= attributes.get(StudyKey.N_TRIALS, 0)


class CheckpointRetention(StudyCallback):
    """Deletes checkpoints that are no longer needed: keeps those of unfinished trials and of the best few.

    Pruned trials keep none.

    Failed trials keep theirs until the study is complete. The models that MLflow has of the others are deleted as well.

    Args:
        study: The study.
        tracker: MLflow's side of it.
        keep: Number of complete trials that keep their weights, the best ones.
        submit: Runs a function that asks MLflow to delete models; by default at once.
    """

    def __init__(
        self,
        study: optuna.Study,
        tracker: Tracker,
        keep: int,
        submit: Callable[[Callable[[], object]], object] = lambda job: job(),
    ) -> None:
        self._study, self._tracker, self._keep, self._submit = study, tracker, keep, submit
        self._folder = folder_of(study)
        self._objective = Objective.of(study)
        self._ended: list[tuple[int, TrialState, float | None, str | None]] = []
        complete = ranked(study)
        models = {trial.number: trial.user_attrs.get(TrialKey.MODEL_URI) for trial in complete}
        # The best ones also without a checkpoint: if that was deleted by hand, MLflow has the only weights.
        self._kept = {
            trial.number: (float(trial.value or 0.0), models[trial.number])
            for rank, trial in enumerate(complete)
            if rank < keep or self._folder.trial(trial.number).best.exists()
        }
        self._surplus = deque(uri for number, uri in models.items() if uri is not None and number not in self._kept)

    def on_trial_end(self, trial: optuna.Trial, state: TrialState, outcome: Outcome) -> None:
        """Remember a finished trial for `on_wait`: deleting takes time, and the next trial starts first."""
        if state.is_finished() and state != TrialState.FAIL:
            self._ended.append((trial.number, state, outcome.value, outcome.model_uri))

    def on_wait(self) -> None:
        """Delete what the trials that have ended no longer need, unless a model is being registered meanwhile."""
        if not self._ended:
            return
        with lock_models(self._folder, wait=False) as locked:
            while locked and self._ended:
                self._delete_after(*self._ended.pop(0))

    def on_study_complete(self) -> None:
        """Delete the checkpoints of failed trials."""
        for path in list(unneeded_checkpoints(self._study, complete=True)):
            path.unlink(missing_ok=True)

    def keep_only(self, numbers: Collection[int]) -> None:
        """Delete the weights of all other trials."""
        with lock_models(self._folder, wait=True):
            for surplus in [other for other in self._kept if other not in numbers]:
                self._delete(surplus, self._kept.pop(surplus)[1])

    def _delete_after(self, number: int, state: TrialState, value: float | None, model_uri: str | None) -> None:
        for path in self._folder.trial(number).resume_files:
            path.unlink(missing_ok=True)
        if state != TrialState.COMPLETE or value is None:
            self._delete(number, model_uri)
            return
        self._kept[number] = (value, model_uri)
        ranked = sorted(self._kept, key=lambda n: self._objective.sort_key(self._kept[n][0]))
        for surplus in ranked[self._keep :]:
            self._delete(surplus, self._kept.pop(surplus)[1])

    def _delete(self, number: int, model_uri: str | None) -> None:
        folder = self._folder.trial(number)
        folder.best.unlink(missing_ok=True)
        shutil.rmtree(folder.checkpoints, ignore_errors=True)
        if model_uri is not None:
            self._surplus.append(model_uri)
        if self._surplus:
            self._submit(self._delete_surplus)

    def _delete_surplus(self) -> None:
        """Delete the models that are not needed. If MLflow does not answer, they are deleted with the next one."""
        try:
            while self._surplus and not self._tracker.is_away:
                delete_model(self._tracker, self._surplus[0])
                self._surplus.popleft()
        except AWAY:
            return
