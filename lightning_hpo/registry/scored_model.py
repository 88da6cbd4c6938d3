"""A model of a study: of a trial, or of several trials of a refit."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from lightning_hpo.storage.attributes import StudyKey, TrialKey, folder_of, model_seal_of, run_id_of
from lightning_hpo.study_folder import TrialFolder

__all__ = ["ScoredModel"]


@dataclass(frozen=True)
class ScoredModel:
    """A model of a study and its score, which a registered version must have.

    Args:
        study: The study.
        folder: Folder with the config, the outputs and the best weights.
        run_id: MLflow's run that has logged the model.
        value: Score of the model.
        collapsed: Whether it predicts the same for every input.
        seal: Seal of its files (see `serving.checksums`); None if Optuna does not have it.
        origin: Tags of a version that say which part of the study the model is of.
        flags: The flags of `register` that name the model.
    """

    study: optuna.Study
    folder: TrialFolder
    run_id: str | None
    value: float | None
    collapsed: bool
    seal: str | None
    origin: Mapping[str, str]
    flags: str

    @classmethod
    def of_trial(cls, study: optuna.Study, trial: FrozenTrial) -> "ScoredModel":
        """Return the model of a trial."""
        return cls(
            study=study,
            folder=folder_of(study).trial(trial.number),
            run_id=run_id_of(study, trial),
            value=trial.value,
            collapsed=bool(trial.user_attrs.get(TrialKey.COLLAPSED)),
            seal=model_seal_of(study, trial),
            origin={"optuna_trial": str(trial.number)},
            flags=f"--trial {trial.number}",
        )

    @property
    def name(self) -> str:
        """Name of the registered model."""
        return f"{self.study.user_attrs[StudyKey.AGENT]}-best-model"

    @property
    def tags(self) -> dict[str, str]:
        """Tags of a version: what it is a model of, and how it was scored."""
        attributes = self.study.user_attrs
        return {
            **self.origin,
            "value": repr(self.value),
            "study": self.study.study_name,
            "monitor": attributes[StudyKey.MONITOR],
            "data_fingerprint": str(attributes[StudyKey.DATA_FINGERPRINT]),
            StudyKey.EVALUATION: json.dumps(attributes.get(StudyKey.EVALUATION, {}), sort_keys=True),
        }

    @property
    def command(self) -> str:
        """The command that registers the model."""
        return f"lightning-hpo register --study {shlex.quote(self.study.study_name)} {self.flags}"
