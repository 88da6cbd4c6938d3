"""How a study stands, as figures: asked of Optuna's tables, so that no trial but the last few is loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Connection, Float, Select, cast, func, select

from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.optuna_private import (
    TRIAL_START,
    StudyDirectionModel,
    StudyModel,
    StudyUserAttributeModel,
    TrialIntermediateValueModel,
    TrialModel,
    TrialUserAttributeModel,
    TrialValueModel,
)

__all__ = ["StudySummary", "TrialSummary", "study_names", "summarize_study"]

_MOST = 20
_MOST_OPEN = 200
_OPEN = (TrialState.RUNNING, TrialState.WAITING)
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class TrialSummary:
    """A trial that is not over, or one of the last.

    Args:
        number: Its number.
        state: Its state.
        value: Its value, or the last that it has reported.
        epochs: Validated epochs.
        began: When it was first started, in seconds since 1970.
        attributes: What it says of itself.
    """

    number: int
    state: TrialState
    value: float | None
    epochs: int
    began: float | None
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class StudySummary:
    """How a study stands.

    Args:
        name: Its name.
        about: What it says of itself.
        counts: Number of trials by state.
        best: Number and value of the best complete trial; None where none is complete, or there are several objectives.
        failures: Number of failed trials by what they say it was; "" for those that say nothing.
        collapsed: Number of trials that give one answer to everything.
        seconds: Mean seconds of the trials that are complete or pruned, where they were trained here.
        latest: The trials that are not over, and the last ones, by number.
    """

    name: str
    about: Mapping[str, Any]
    counts: Mapping[TrialState, int]
    best: tuple[int, float] | None
    failures: Mapping[str, int]
    collapsed: int
    seconds: float | None
    latest: list[TrialSummary]

    @property
    def done(self) -> int:
        """Number of trials that count towards the number of trials of the study."""
        return sum(self.counts.get(state, 0) for state in _COUNTED)

    def of(self, state: TrialState) -> list[TrialSummary]:
        """The trials in a state among the latest: all, if it is one of trials that are not over."""
        return [trial for trial in self.latest if trial.state == state]


def study_names(connection: Connection) -> list[str]:
    """The names of all studies, by age."""
    return list(connection.scalars(select(StudyModel.study_name).order_by(StudyModel.study_id)))


def summarize_study(connection: Connection, name: str) -> StudySummary:
    """How a study stands.

    Args:
        connection: To Optuna's database.
        name: The study.

    Raises:
        InputError: If there is no such study.
    """
    study_id = connection.scalar(select(StudyModel.study_id).where(StudyModel.study_name == name))
    if study_id is None:
        names = ", ".join(study_names(connection)) or "none"
        raise InputError(f"--study {name}: no such study in this database; there are: {names}")
    counted = select(TrialModel.state, func.count()).where(TrialModel.study_id == study_id).group_by(TrialModel.state)
    return StudySummary(
        name=name,
        about=_about(connection, study_id),
        counts={row[0]: row[1] for row in connection.execute(counted)},
        best=_best(connection, study_id),
        failures=_failures(connection, study_id),
        collapsed=connection.scalar(_with_attribute(study_id, "collapsed", func.count())) or 0,
        seconds=_seconds(connection, study_id),
        latest=_latest(connection, study_id),
    )


def _about(connection: Connection, study_id: int) -> dict[str, Any]:
    kept = StudyUserAttributeModel
    rows = connection.execute(select(kept.key, kept.value_json).where(kept.study_id == study_id))
    return {key: json.loads(value) for key, value in rows}


def _best(connection: Connection, study_id: int) -> tuple[int, float] | None:
    aim = select(StudyDirectionModel.direction).where(StudyDirectionModel.study_id == study_id)
    directions = list(connection.scalars(aim))
    if len(directions) != 1:
        return None
    value = TrialValueModel.value
    complete = (
        select(TrialModel.number, value)
        .join(TrialValueModel, TrialValueModel.trial_id == TrialModel.trial_id)
        .where(TrialModel.study_id == study_id, TrialModel.state == TrialState.COMPLETE, value.is_not(None))
    )
    order = value.desc() if directions[0] == StudyDirection.MAXIMIZE else value
    found = connection.execute(complete.order_by(order, TrialModel.number).limit(1)).first()
    return None if found is None else (found[0], found[1])


def _with_attribute(study_id: int, key: str, *columns: Any) -> Select[Any]:
    kept = TrialUserAttributeModel
    with_it = select(*columns).join_from(TrialModel, kept, kept.trial_id == TrialModel.trial_id)
    return with_it.where(TrialModel.study_id == study_id, kept.key == key)


def _failures(connection: Connection, study_id: int) -> dict[str, int]:
    kept = TrialUserAttributeModel
    reasons = (
        select(kept.value_json, func.count())
        .select_from(TrialModel)
        .outerjoin(kept, (kept.trial_id == TrialModel.trial_id) & (kept.key == "ended_by"))
        .where(TrialModel.study_id == study_id, TrialModel.state == TrialState.FAIL)
        .group_by(kept.value_json)
        .order_by(func.count().desc(), kept.value_json)
    )
    return {"" if reason is None else json.loads(reason): count for reason, count in connection.execute(reasons)}


def _seconds(connection: Connection, study_id: int) -> float | None:
    mean = func.avg(cast(TrialUserAttributeModel.value_json, Float))
    found = connection.scalar(_with_attribute(study_id, "runtime_s", mean).where(TrialModel.state.in_(_COUNTED)))
    return None if found is None else float(found)


def _latest(connection: Connection, study_id: int) -> list[TrialSummary]:
    columns = (TrialModel.trial_id, TrialModel.number, TrialModel.state, TRIAL_START)
    own = select(*columns).where(TrialModel.study_id == study_id)
    rows = {
        row[0]: row
        for query in (
            own.where(TrialModel.state.in_(_OPEN)).limit(_MOST_OPEN),
            own.order_by(TrialModel.number.desc()).limit(_MOST),
        )
        for row in connection.execute(query)
    }
    attributes: dict[int, dict[str, Any]] = {trial_id: {} for trial_id in rows}
    kept = TrialUserAttributeModel
    for trial_id, key, value in connection.execute(
        select(kept.trial_id, kept.key, kept.value_json).where(kept.trial_id.in_(rows))
    ):
        attributes[trial_id][key] = json.loads(value)
    values, reported = _values(connection, list(rows))
    return [
        TrialSummary(
            number=number,
            state=state,
            value=values.get(trial_id, reported[trial_id][-1] if trial_id in reported else None),
            epochs=len(reported.get(trial_id, ())),
            began=None if began is None else _since_1970(began),
            attributes=attributes[trial_id],
        )
        for trial_id, number, state, began in sorted(rows.values(), key=lambda row: int(row[1]))
    ]


def _since_1970(utc: datetime) -> float:
    return utc.replace(tzinfo=UTC).timestamp()


def _values(connection: Connection, trial_ids: list[int]) -> tuple[dict[int, float], dict[int, list[float]]]:
    """The trials' values, and what they have reported, by epoch."""
    final, epoch = TrialValueModel, TrialIntermediateValueModel
    ends = select(final.trial_id, final.value).where(final.trial_id.in_(trial_ids), final.objective == 0)
    reports = select(epoch.trial_id, epoch.intermediate_value).where(epoch.trial_id.in_(trial_ids))
    reported: dict[int, list[float]] = {}
    for trial_id, value in connection.execute(reports.order_by(epoch.step)):
        reported.setdefault(trial_id, []).append(value)
    return {row[0]: row[1] for row in connection.execute(ends)}, reported
