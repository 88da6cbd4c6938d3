import math

import optuna
import pytest
from optuna.trial import TrialState

from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.connection import connect
from lightning_hpo.storage.summary import StudySummary, study_names, summarize_study


def _summary(url: str, name: str = "first") -> StudySummary:
    with connect(DatabaseUrl(url, "--storage")) as connection:
        return summarize_study(connection, name)


def _tell(study: optuna.Study, state: TrialState, *reports: float, **attributes: object) -> None:
    trial = study.ask()
    for epoch, value in enumerate(reports):
        trial.report(value, epoch)
    for key, attribute in attributes.items():
        trial.set_user_attr(key, attribute)
    study.tell(trial, max(reports) if state == TrialState.COMPLETE else None, state)


def test_summary_of_a_study_without_trials(study: optuna.Study, storage_url: str) -> None:
    found = _summary(storage_url)
    assert (found.done, found.best, found.failures, found.seconds, found.latest) == (0, None, {}, None, [])
    assert found.name == study.study_name


def test_summary_agrees_with_optuna(study: optuna.Study, storage_url: str) -> None:
    study.set_user_attr("data_counts", {"posts": 3})
    _tell(study, TrialState.COMPLETE, 0.2, 0.6, 0.4, runtime_s=10.0)
    _tell(study, TrialState.PRUNED, 0.1, runtime_s=4.0)
    _tell(study, TrialState.COMPLETE, 0.6, runtime_s=7.0, collapsed=True)
    _tell(study, TrialState.FAIL, runtime_s=500.0, ended_by="out of memory")
    _tell(study, TrialState.FAIL, ended_by="out of memory")
    _tell(study, TrialState.FAIL)
    study.enqueue_trial({})
    study.ask().report(0.5, 0)
    study.enqueue_trial({})
    found = _summary(storage_url)
    trials = study.get_trials()
    assert found.about == study.user_attrs
    assert found.counts == {state: sum(trial.state == state for trial in trials) for state in TrialState}
    assert found.done == 3
    assert found.best == (study.best_trial.number, study.best_value) == (0, 0.6)
    assert found.failures == {"out of memory": 2, "": 1}
    assert found.collapsed == 1
    assert found.seconds == pytest.approx(7.0)  # of complete and pruned trials
    assert [trial.number for trial in found.latest] == list(range(8))
    for trial, summary in zip(trials, found.latest, strict=True):
        assert (summary.state, summary.epochs, summary.attributes) == (
            trial.state, len(trial.intermediate_values), trial.user_attrs,
        )  # fmt: skip
        assert summary.value == (trial.value if trial.value is not None else trial.intermediate_values.get(0))
        began = None if trial.datetime_start is None else trial.datetime_start.timestamp()
        assert summary.began == began
    [running] = found.of(TrialState.RUNNING)
    assert running.number == 6


def test_lowest_value_is_best_when_minimizing_and_infinity_is_ignored(storage_url: str) -> None:
    study = optuna.create_study(study_name="loss", storage=storage_url)
    for value in (0.3, -math.inf, 0.1):
        study.tell(study.ask(), value)
    assert _summary(storage_url, "loss").best == (2, 0.1)


def test_last_and_unfinished_trials_are_listed(study: optuna.Study, storage_url: str) -> None:
    study.ask()
    for value in range(30):
        study.add_trial(optuna.create_trial(value=value))
    found = _summary(storage_url)
    assert [trial.number for trial in found.latest] == [0, *range(11, 31)]
    assert found.done == 30


def test_study_with_two_objectives_has_no_best_trial(storage_url: str) -> None:
    study = optuna.create_study(study_name="two", storage=storage_url, directions=["maximize", "minimize"])
    study.tell(study.ask(), (0.5, 0.2))
    assert _summary(storage_url, "two").best is None


def test_missing_study_is_refused_with_the_names_of_the_others(study: optuna.Study, storage_url: str) -> None:
    with connect(DatabaseUrl(storage_url, "--storage")) as connection:
        assert study_names(connection) == [study.study_name]
        with pytest.raises(InputError, match="--study second: no such study in this database; there are: first"):
            summarize_study(connection, "second")
