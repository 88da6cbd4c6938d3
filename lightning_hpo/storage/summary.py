"""Summary of a study, read by SQL queries from Optuna's tables. Only the last trials are loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Connection, Float, Select, cast, func, select

from lightning_hpo.exceptions import InputError, raise_problems
from lightning_hpo.storage.optuna_private import TRIAL_START, models
from lightning_hpo.storage.stored_values import stored_problem

__all__ = ["StudySummary", "TrialSummary", "study_names", "summarize_study"]

_Trial = models.TrialModel
_LAST = 20
_MAX_UNFINISHED = 200
_UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class TrialSummary:
    """Summary of an unfinished trial, or of one of the last trials.

    Args:
        number: Number of the trial in its study.
        state: State of the trial.
        value: Its value, or the last reported value if it has none.
        epochs: Number of validated epochs.
        began: Time of its first start in seconds since 1970.
        attributes: Its user attributes.
    """

    number: int
    state: TrialState
    value: float | None
    epochs: int
    began: float | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class StudySummary:
    """Summary of a study.

    Args:
        name: Name of the study.
        about: Its user attributes.
        counts: Number of trials by state.
        best: Number and value of the best complete trial; None if no trial is complete or there are several objectives.
        failures: Number of failed trials by reason; "" for an unknown reason.
        collapsed: Number of trials whose model predicts the same for every input.
        seconds: Mean training time of complete and pruned trials; None if no trial has one.
        latest: Unfinished trials (at most 200) and the last 20 trials, by number.
    """

    name: str
    about: dict[str, Any]
    counts: Mapping[TrialState, int]
    best: tuple[int, float] | None
    failures: Mapping[str, int]
    collapsed: int
    seconds: float | None
    latest: list[TrialSummary]

    @property
    def done(self) -> int:
        """Number of trials that count towards --study.n_trials: complete and pruned ones."""
        return sum(self.counts.get(state, 0) for state in _COUNTED)

    def of(self, state: TrialState) -> list[TrialSummary]:
        """Return the latest trials that are in a state. For RUNNING and WAITING these are all trials (at most 200)."""
        return [trial for trial in self.latest if trial.state == state]


def study_names(connection: Connection) -> list[str]:
    """Return the names of all studies, the oldest first."""
    return list(connection.scalars(select(models.StudyModel.study_name).order_by(models.StudyModel.study_id)))


def summarize_study(connection: Connection, name: str) -> StudySummary:
    """Summarize a study.

    Args:
        connection: Connection to Optuna's database.
        name: Name of the study.

    Raises:
        InputError: If the study does not exist, or a value is not of the type that `tune` stores.
    """
    study_id = connection.scalar(select(models.StudyModel.study_id).where(models.StudyModel.study_name == name))
    if study_id is None:
        names = ", ".join(study_names(connection)) or "none"
        raise InputError(f"--study {name}: no such study in this database; there are: {names}")
    attribute = models.StudyUserAttributeModel
    about = select(attribute.key, attribute.value_json).where(attribute.study_id == study_id)
    counted = select(_Trial.state, func.count()).where(_Trial.study_id == study_id).group_by(_Trial.state)
    attributes, latest = (
        {key: json.loads(value) for key, value in connection.execute(about)},
        _latest(connection, study_id),
    )
    problems = [stored_problem(name, attributes)]
    problems += [stored_problem(name, each.attributes, trial=each.number) for each in latest]
    raise_problems(next(([problem] for problem in problems if problem), []))
    return StudySummary(
        name=name,
        about=attributes,
        counts={row[0]: row[1] for row in connection.execute(counted)},
        best=_best(connection, study_id),
        failures=_failures(connection, study_id),
        collapsed=connection.scalar(_with_attribute(study_id, "collapsed", func.count())) or 0,
        seconds=_seconds(connection, study_id),
        latest=latest,
    )


def _best(connection: Connection, study_id: int) -> tuple[int, float] | None:
    direction = select(models.StudyDirectionModel.direction).where(models.StudyDirectionModel.study_id == study_id)
    directions = list(connection.scalars(direction))
    if len(directions) != 1:
        return None
    value = models.TrialValueModel.value
    order = value.desc() if directions[0] == StudyDirection.MAXIMIZE else value
    complete = (
        select(_Trial.number, value)
        .join(models.TrialValueModel, models.TrialValueModel.trial_id == _Trial.trial_id)
        .where(_Trial.study_id == study_id, _Trial.state == TrialState.COMPLETE, value.is_not(None))
        .order_by(order, _Trial.number)
    )
    found = connection.execute(complete.limit(1)).first()
    return None if found is None else (found[0], found[1])


def _with_attribute(study_id: int, key: str, *columns: Any) -> Select[Any]:
    attribute = models.TrialUserAttributeModel
    matching = select(*columns).join_from(_Trial, attribute, attribute.trial_id == _Trial.trial_id)
    return matching.where(_Trial.study_id == study_id, attribute.key == key)


def _failures(connection: Connection, study_id: int) -> dict[str, int]:
    attribute = models.TrialUserAttributeModel
    reasons = (
        select(attribute.value_json, func.count())
        .select_from(_Trial)
        .outerjoin(attribute, (attribute.trial_id == _Trial.trial_id) & (attribute.key == "ended_by"))
        .where(_Trial.study_id == study_id, _Trial.state == TrialState.FAIL)
        .group_by(attribute.value_json)
        .order_by(func.count().desc(), attribute.value_json)
    )
    return {"" if reason is None else json.loads(reason): count for reason, count in connection.execute(reasons)}


def _seconds(connection: Connection, study_id: int) -> float | None:
    mean = func.avg(cast(models.TrialUserAttributeModel.value_json, Float))
    found = connection.scalar(_with_attribute(study_id, "runtime_s", mean).where(_Trial.state.in_(_COUNTED)))
    return None if found is None else float(found)


def _latest(connection: Connection, study_id: int) -> list[TrialSummary]:
    columns = (_Trial.trial_id, _Trial.number, _Trial.state, TRIAL_START)
    trials = select(*columns).where(_Trial.study_id == study_id)
    rows = {
        row[0]: row
        for query in (
            trials.where(_Trial.state.in_(_UNFINISHED)).limit(_MAX_UNFINISHED),
            trials.order_by(_Trial.number.desc()).limit(_LAST),
        )
        for row in connection.execute(query)
    }
    attributes: dict[int, dict[str, Any]] = {trial_id: {} for trial_id in rows}
    attribute = models.TrialUserAttributeModel
    for trial_id, key, value in connection.execute(
        select(attribute.trial_id, attribute.key, attribute.value_json).where(attribute.trial_id.in_(rows))
    ):
        attributes[trial_id][key] = json.loads(value)
    values, reported = _values(connection, list(rows))
    return [
        TrialSummary(
            number=number,
            state=state,
            value=values.get(trial_id, reported[trial_id][-1] if trial_id in reported else None),
            epochs=len(reported.get(trial_id, ())),
            began=None if began is None else began.replace(tzinfo=UTC).timestamp(),
            attributes=attributes[trial_id],
        )
        for trial_id, number, state, began in sorted(rows.values(), key=lambda row: int(row[1]))
    ]


def _values(connection: Connection, trial_ids: list[int]) -> tuple[dict[int, float], dict[int, list[float]]]:
    """Return the final value of each trial, and its reported values by epoch."""
    final, report = models.TrialValueModel, models.TrialIntermediateValueModel
    finals = select(final.trial_id, final.value).where(final.trial_id.in_(trial_ids), final.objective == 0)
    reports = select(report.trial_id, report.intermediate_value).where(report.trial_id.in_(trial_ids))
    reported: dict[int, list[float]] = {}
    for trial_id, value in connection.execute(reports.order_by(report.step)):
        reported.setdefault(trial_id, []).append(value)
    return {row[0]: row[1] for row in connection.execute(finals)}, reported
