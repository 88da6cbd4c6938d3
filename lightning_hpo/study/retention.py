"""Which trials keep weights: those that are not over, and the best few of the others."""

from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.trial import TrialState

from lightning_hpo.study_folder import BEST, RESUME
from lightning_hpo.tracking.tracker import AWAY, Tracker

__all__ = ["CheckpointRetention", "unowned_checkpoints"]


def unowned_checkpoints(study: optuna.Study, folder: Path) -> Iterator[Path]:
    """Checkpoints that no trial will use: of trials that are over, all but the best epoch's of a complete one.

    Args:
        study: The study.
        folder: Folder of the trials' folders.
    """
    states = {trial.number: trial.state for trial in study.get_trials(deepcopy=False)}
    for path in sorted(folder.glob("trial_*/*.ckpt*")):
        state = states.get(int(path.parent.name.removeprefix("trial_")))
        if state is not None and state.is_finished() and (state != TrialState.COMPLETE or path.name != BEST):
            yield path


class CheckpointRetention:
    """The weights of a study's trials, on disk and as models in MLflow.

    Args:
        study: The study.
        tracker: MLflow's side of it.
        folder: Folder of the trials' folders.
        keep: How many of the best complete trials keep theirs.
    """

    def __init__(self, study: optuna.Study, tracker: Tracker, folder: Path, keep: int) -> None:
        self._tracker, self._folder, self._keep = tracker, folder, keep
        self._lower_is_better = study.direction == optuna.study.StudyDirection.MINIMIZE
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        models = {trial.number: trial.user_attrs.get("mlflow_model_uri") for trial in complete}
        self._kept = {
            trial.number: (float(trial.value or 0.0), models[trial.number])
            for trial in complete
            if (self._of(trial.number) / BEST).exists()
        }
        self._surplus = [uri for number, uri in models.items() if uri is not None and number not in self._kept]

    def settle(self, number: int, state: TrialState, value: float | None, model_uri: str | None) -> None:
        """Drop what is no longer needed, after a trial has ended."""
        for name in RESUME:
            (self._of(number) / name).unlink(missing_ok=True)
        if state != TrialState.COMPLETE or value is None:
            self._drop(number, model_uri)
            return
        self._kept[number] = (value, model_uri)
        ranked = sorted(self._kept, key=lambda n: self._kept[n][0], reverse=not self._lower_is_better)
        for surplus in ranked[self._keep :]:
            self._drop(surplus, self._kept.pop(surplus)[1])

    def keep_only(self, number: int) -> None:
        """Drop the weights of all trials but one."""
        for surplus in [other for other in self._kept if other != number]:
            self._drop(surplus, self._kept.pop(surplus)[1])

    def _of(self, number: int) -> Path:
        return self._folder / f"trial_{number}"

    def _drop(self, number: int, model_uri: str | None) -> None:
        (self._of(number) / BEST).unlink(missing_ok=True)
        if model_uri is not None:
            self._surplus.append(model_uri)
        self._delete_surplus()

    def _delete_surplus(self) -> None:
        try:
            while self._surplus:
                self._tracker.delete_model(self._surplus[-1])
                self._surplus.pop()
        except AWAY:
            return  # tried again with the next one
