"""Result of a complete refit: scores of all candidates, the winner, and its score on the test split."""

import math
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.agents.post_scores import read_post_scores
from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.refit.intervals import Estimate, Run
from lightning_hpo.refit.seed_scores import SeedScores, compare, lead, rank
from lightning_hpo.storage.attributes import StudyKey, TrialKey, folder_of
from lightning_hpo.storage.objective import BASELINE_METRIC, Objective, comparable_baselines, score_text

__all__ = ["DRAW_SEED", "SEED", "SUFFIX", "TRIAL", "RefitResult", "steps_text"]

SUFFIX = "-refit"
TRIAL, SEED = "trial", "seed_everything"
DRAW_SEED = "data.draw_seed"


class RefitResult:
    """Scores of the refit (`study`) of a searched study, whose trials are all finished.

    Raises:
        LightningHpoError: If no trial of the refit has a score.
    """

    def __init__(self, searched: optuna.Study, study: optuna.Study) -> None:
        self.searched, self.study = searched, study
        self._trials = study.get_trials(deepcopy=False)
        if not self.ranked:
            raise LightningHpoError(
                f"{study.study_name}: all trials have failed; "
                f"`lightning-hpo status --study {shlex.quote(study.study_name)}` shows the reasons"
            )

    @cached_property
    def candidates(self) -> list[SeedScores]:
        """The candidates in the order of the searched study, the best first."""
        values = {trial.number: trial.value for trial in self.searched.get_trials(deepcopy=False)}
        return [self._candidate(number, values[number]) for number in self.study.user_attrs[StudyKey.REFIT_CANDIDATES]]

    def _candidate(self, number: int, searched: float | None) -> SeedScores:
        own = [trial for trial in self._trials if trial.params.get(TRIAL) == number]
        scores = {trial.params[SEED]: trial.value for trial in own if trial.value is not None}
        failed = [trial for trial in own if trial.state == TrialState.FAIL]
        reasons = {trial.params[SEED]: str(trial.user_attrs.get(TrialKey.REASON, "failed")) for trial in failed}
        return SeedScores(number, math.nan if searched is None else searched, scores, reasons, self._runs(own))

    def _runs(self, trials: list[FrozenTrial]) -> dict[int, Run]:
        """Return the scores by post by seed, if they are those of the metric."""
        if self.monitor != BASELINE_METRIC or StudyKey.OUTDIR not in self.study.user_attrs:
            return {}
        folder = folder_of(self.study)
        return {
            trial.params[SEED]: list(read_post_scores(folder.trial(trial.number).post_scores).values())
            for trial in trials
            if trial.value is not None
        }

    @cached_property
    def ranked(self) -> list[SeedScores]:
        """The candidates that have a score, the best first."""
        return rank(self.candidates, Objective.of(self.study))

    @property
    def winner(self) -> SeedScores:
        """The candidate with the best mean."""
        return self.ranked[0]

    @property
    def median_trial(self) -> FrozenTrial:
        """The winner's trial with the median score, whose test score is neither lucky nor unlucky."""
        params = {TRIAL: self.winner.trial, SEED: self.winner.median_seed}
        return next(trial for trial in self._trials if trial.value is not None and trial.params == params)

    @property
    def better_baselines(self) -> dict[str, float]:
        """The baselines that score at least as high as the winner's mean."""
        baselines = comparable_baselines(self.study.user_attrs)
        return {name: value for name, value in baselines.items() if value >= self.winner.estimate.mean}

    @cached_property
    def leads(self) -> dict[str, Estimate]:
        """The winner's lead over each baseline whose scores by post are known."""
        if StudyKey.OUTDIR not in self.study.user_attrs:
            return {}
        found = {
            name: lead(self.winner, scores)
            for name, scores in read_post_scores(folder_of(self.study).baselines).items()
        }
        return {name: each for name, each in found.items() if each is not None}

    @property
    def monitor(self) -> str:
        """Name of the metric."""
        return str(self.study.user_attrs[StudyKey.MONITOR])

    @property
    def tested(self) -> dict[str, Any] | None:
        """Score on the test split, or None before it is scored.

        Keys: `number` and `params` of the scored trial, its `metrics`, the baselines as `constant_answers`, and, of
        `test_metric`, the `interval` over samples of posts and the `leads` over the baselines, as `Estimate`.
        """
        tested: dict[str, Any] | None = self.study.user_attrs.get(StudyKey.REFIT_TESTED)
        return tested

    def set_tested(self, trial: FrozenTrial, found: Mapping[str, Any]) -> None:
        """Store the score of a trial on the test split with the study."""
        self.study.set_user_attr(StudyKey.REFIT_TESTED, {"number": trial.number, "params": trial.params, **found})

    @property
    def models(self) -> dict[str, Any]:
        """What is stored of the soup and of the ensemble of the winner's seeds, by these words, once registered.

        Keys of each: `trial` (the winner then), `offered` (seeds that had weights), `seeds` (those that are part of
        it), `steps` (`seed`, `score` and `added`, of a soup), `value`, `collapsed`, `run_id`, `model_uri`, `seal`.
        """
        models: dict[str, Any] = self.study.user_attrs.get(StudyKey.REFIT_MODELS, {})
        return models

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `refit.json`."""
        return {
            "study": self.searched.study_name,
            "monitor": self.monitor,
            "candidates": [self._as_dict(each) for each in self.ranked],
            "difference": asdict(compare(*self.ranked[:2])) if len(self.ranked) > 1 else None,
            "winner": self.winner.trial,
            "leads": {name: each.as_json() for name, each in self.leads.items()},
            "test": self.tested,
            "models": self.models,
        }

    @staticmethod
    def _as_dict(each: SeedScores) -> dict[str, Any]:
        about = {"trial": each.trial, "searched": each.searched, "scores": each.scores, "failures": each.failures}
        return about | asdict(each.estimate) | {"gap": each.gap}

    def metrics(self) -> dict[str, float]:
        """Return the finite metrics of the parent run in MLflow."""
        own = {f"winner_{name}": getattr(self.winner.estimate, name) for name in ("mean", "std", "low", "high")}
        own |= {"winner_searched": self.winner.searched, "winner_gap": self.winner.gap}
        own |= (self.tested or {}).get("metrics", {})
        return {name: value for name, value in own.items() if math.isfinite(value)}


def steps_text(kind: str, entry: Mapping[str, Any], monitor: str) -> str:
    """Return a line about a soup or an ensemble that is stored with a refit (see `RefitResult.models`)."""
    seeds = f"seed{'s' * (len(entry['seeds']) > 1)} {', '.join(map(str, entry['seeds']))}"
    line = f"{kind} of {seeds} of trial {entry['trial']}: {monitor} {score_text(entry['value'])}"
    if not entry["steps"]:
        return line
    first, *further = entry["steps"]
    steps = [f"seed {first['seed']} alone {_score(first)}"]
    steps += [f"with seed {step['seed']} {_score(step)}{'' if step['added'] else ', left out'}" for step in further]
    return f"{line} ({'; '.join(steps)})"


def _score(step: Mapping[str, Any]) -> str:
    return "not finite" if step["score"] is None else score_text(step["score"])
