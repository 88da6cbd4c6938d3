"""Printed lines of a refit, for studies in memory."""

from typing import Any

import optuna
import pytest
from optuna.trial import create_trial

from lightning_hpo.exceptions import LightningHpoError
from lightning_hpo.refit.result import SEED, TRIAL, RefitResult
from lightning_hpo.refit.summary import print_candidates, print_test_score
from lightning_hpo.storage.attributes import StudyKey

Scores = dict[int, list[float | None]]


def _result(scores: Scores, **attributes: Any) -> RefitResult:
    """Return the result of a refit with seeds 18, 19, … for each candidate. A score of None is a failed trial."""
    searched = optuna.create_study(study_name="first", direction="maximize")
    for _ in range(max(scores) + 1):
        searched.add_trial(create_trial(value=0.9))
    study = optuna.create_study(study_name="first-refit", direction="maximize")
    about = {"monitor": "val_metric", "constant_answers": {}, StudyKey.REFIT_CANDIDATES: list(scores), **attributes}
    for key, value in about.items():
        study.set_user_attr(key, value)
    for candidate, values in scores.items():
        for seed, value in enumerate(values, start=18):
            _add_trial(study, {TRIAL: candidate, SEED: seed}, value)
    return RefitResult(searched, study)


def _add_trial(study: optuna.Study, params: dict[str, int], value: float | None) -> None:
    distributions: Any = {name: optuna.distributions.IntDistribution(0, 99) for name in params}
    state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
    reason = {"ended_by": "out of memory"} if value is None else {}
    study.add_trial(
        create_trial(state=state, value=value, params=params, distributions=distributions, user_attrs=reason)
    )


@pytest.mark.parametrize(
    ("scores", "line"),
    [
        (
            {0: [0.70, 0.72], 1: [0.50, 0.52]},
            "second: trial 1; the difference of +0.2000 is significant (95 % interval",
        ),
        ({0: [0.70, 0.72], 1: [0.73, 0.65]}, "the difference of +0.0200 is within the noise (95 % interval -0."),
        ({0: [0.70], 1: [0.50]}, "second: trial 1; a comparison needs at least two seeds that both trials have"),
        ({0: [0.70, 0.72], 1: [0.50, None]}, "trial 1 failed with seed 19 (out of memory)"),
    ],
)
def test_winner_is_compared_with_the_second(scores: Scores, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_candidates(_result(scores))
    output = capsys.readouterr().out
    assert "winner: trial 0 of first, mean 0.7" in output
    assert line in output


def test_better_constant_baselines_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    baselines = {"always met": 0.75, "never met": 0.1}
    print_candidates(_result({0: [0.70, 0.72]}, constant_answers=baselines))
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "the winner is not better than these baselines: always met 0.7500",
        "the intervals cover other seeds, with these validation posts; each score is that of the best epoch",
    ]


def test_test_score_of_an_earlier_winner_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    result = _result({0: [0.70, 0.72, 0.71], 1: [0.50, 0.52, 0.51]})
    assert result.median_trial.number == 2
    print_test_score(result)
    assert capsys.readouterr().out.startswith("test split: not used; without --no-test")
    interval = {"mean": 0.6, "low": 0.5, "high": 0.7, "count": 1, "posts": 90}
    lead = {"mean": 0.2, "low": -0.1, "high": 0.5, "count": 1, "posts": 90}
    found = {"metrics": {"test_metric": 0.6}, "constant_answers": {"always met": 0.4, "never met": 0.5}}
    result.set_tested(result.study.trials[3], {**found, "interval": interval, "leads": {"always met": lead}})
    print_test_score(result)
    assert capsys.readouterr().out.splitlines() == [
        "test split, scored once: test_metric 0.6000, 95 % interval 0.5000 to 0.7000 "
        "(trial 1, seed 18, which has the median score)",
        "baselines on the test split: never met 0.5000; "
        "always met 0.4000 (lead +0.2000, within the noise: -0.1000 to +0.5000)",
        "the winner has changed since, with more seeds; refit does not score the test split again",
        "register this model: lightning-hpo register --study first-refit --trial 3",
    ]


def test_refit_without_scores_is_an_error() -> None:
    with pytest.raises(LightningHpoError, match=r"^first-refit: all trials have failed; `lightning-hpo status --study"):
        _result({0: [None]})


def test_baselines_are_not_shown_next_to_another_metric(capsys: pytest.CaptureFixture[str]) -> None:
    result = _result({0: [0.70, 0.72]}, monitor="val_loss", constant_answers={"always met": 0.75})
    result.set_tested(result.study.trials[0], {"metrics": {"test_loss": 0.6}, "constant_answers": {"always met": 0.4}})
    print_candidates(result)
    print_test_score(result)
    assert "baselines" not in capsys.readouterr().out
