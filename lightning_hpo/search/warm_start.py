"""Start of a study from another study: its best points, fixed flags and narrowed ranges.

It is computed once, when a study begins, and stored in the study. Later changes of the other study have no effect.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from lightning_hpo.config.errors import nearest
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.dimension import from_label
from lightning_hpo.storage.attributes import StudyKey
from lightning_hpo.storage.objective import score_text
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import StudyDatabase, ranked

__all__ = ["WarmStart", "distinct_points", "find_warm_start"]

_COMPARED = (StudyKey.MONITOR, StudyKey.MODE, StudyKey.DATA_FINGERPRINT)


@dataclass(frozen=True)
class WarmStart:
    """What a study takes over from another study. Values are stored as in Optuna.

    Args:
        study: Name of the other study.
        trial: Number of its best trial.
        value: Value of that trial.
        best: Values of that trial by flag, including the flags that the other study has fixed.
        points: Values of the best trials by flag, best first. Flags that are not searched now are left out.
        measured: Metric, mode, data fingerprint and evaluation flags of the other study.
        queue: Maximum number of points, as requested by the user.
        narrow: Share of its range that each flag keeps.
        fix: Flags that are fixed.
    """

    study: str
    trial: int
    value: float
    best: Mapping[str, Any]
    points: list[Mapping[str, Any]]
    measured: Mapping[str, Any]
    queue: int
    narrow: float | None = None
    fix: list[str] = field(default_factory=list)

    @property
    def fixed(self) -> dict[str, Any]:
        """Value of each fixed flag. A flag that the best trial does not have keeps its value in the config."""
        return {flag: from_label(self.best[flag]) for flag in self.fix if flag in self.best}

    def problems(self, about: Mapping[str, Any]) -> list[str]:
        """Explain why a study with these attributes must not use `narrow` or `fix`: metric or data set differ."""
        other = self._differences(about)
        flags = [f"--study.{flag}" for flag in ("narrow", "fix") if getattr(self, flag)]
        if not other or not flags:
            return []
        return [
            f"{', '.join(flags)}: {self.study} was tuned with {other}, so its best values may be bad ones here; remove "
            f"{'this flag' if len(flags) == 1 else 'these flags'} to try only its best points"
        ]

    def line(self, about: Mapping[str, Any]) -> str:
        """Return one line for the screen: what a study with these attributes takes over."""
        parts = [f"first the defaults, then {len(self.points)} of its best points"]
        if self.narrow is not None:
            parts = [f"{parts[0]}, if they are in the narrowed ranges"]
            parts += [f"ranges narrowed to {100 * self.narrow:g}% around its best values"]
        if self.fix:
            parts += [f"fixed: {', '.join(self.fix)}"]
        if other := self._differences(about):
            parts += [f"it was tuned with {other}, so its values cannot be compared with those of this study"]
        return f"starts from {self.study}, best {score_text(self.value)} in trial {self.trial}: {'; '.join(parts)}"

    def _differences(self, about: Mapping[str, Any]) -> str:
        pairs = {key: (self.measured.get(key), about[key]) for key in _COMPARED}
        before = self.measured.get(StudyKey.EVALUATION) or {}  # None for a study of an earlier version
        pairs |= {
            flag: (before[flag], value) for flag, value in about.get(StudyKey.EVALUATION, {}).items() if flag in before
        }
        # As JSON, in which 1 (one batch) and 1.0 (all batches) differ.
        return ", ".join(
            f"{key} {other} (here {here})"
            for key, (other, here) in pairs.items()
            if json.dumps(other) != json.dumps(here)
        )


def find_warm_start(
    database: StudyDatabase, settings: StudySettings, agent: str, searched: Collection[str]
) -> WarmStart | None:
    """Return what a study takes over from another study, or None if it does not start from one.

    Raises:
        InputError: If the other study cannot be used, or the study began with other settings.
    """
    own = database.find(str(settings.name))
    if own is None or StudyKey.AGENT not in own.user_attrs:
        return None if settings.from_ is None else _begin(database, settings, agent, searched)
    stored = own.user_attrs.get(StudyKey.STARTED_FROM)
    warm_start = None if stored is None else WarmStart(**stored)
    if problems := _changes(own, warm_start, settings):
        raise InputError(problems)
    return warm_start


def _changes(own: optuna.Study, warm_start: WarmStart | None, settings: StudySettings) -> list[str]:
    pairs: dict[str, tuple[Any, Any]] = {"from": (warm_start and warm_start.study, settings.from_)}
    if warm_start is not None:
        pairs |= {flag: (getattr(warm_start, flag), getattr(settings, flag)) for flag in ("queue", "narrow", "fix")}
    return [
        f"--study.{flag}: got {now}, but {own.study_name} began with {before}; use the same, or another --study.name"
        for flag, (before, now) in pairs.items()
        if before != now
    ]


def _begin(database: StudyDatabase, settings: StudySettings, agent: str, searched: Collection[str]) -> WarmStart:
    other = database.load(str(settings.from_), flag="--study.from")
    trials = _best_trials(other, agent)
    about = other.user_attrs
    earlier = WarmStart(**about[StudyKey.STARTED_FROM]) if StudyKey.STARTED_FROM in about else None
    fixed = {} if earlier is None else {flag: earlier.best[flag] for flag in earlier.fix if flag in earlier.best}
    # A flag of this search space may belong to a choice that no trial of the other study has drawn.
    _check_fix(settings.fix, {*fixed, *searched, *(flag for trial in trials for flag in trial.params)}, searched, other)
    wanted = [flag for flag in searched if flag not in settings.fix]
    points = distinct_points([fixed | trial.params for trial in trials], wanted)[: settings.queue]
    if settings.queue and not points and not settings.fix:
        raise InputError(
            f"--study.from {other.study_name}: none of its trials has a value of a flag of this search space; "
            "use another study, or search one of its flags"
        )
    return WarmStart(
        study=other.study_name,
        trial=trials[0].number,
        value=float(trials[0].value or 0.0),
        best=fixed | trials[0].params,
        points=points,
        measured={key: about.get(key) for key in (*_COMPARED, StudyKey.EVALUATION)},
        queue=settings.queue,
        narrow=settings.narrow,
        fix=settings.fix,
    )


def _best_trials(other: optuna.Study, agent: str) -> list[FrozenTrial]:
    """Return the complete trials of the other study, best first, after checking that a study can start from it."""
    about, where = other.user_attrs, f"--study.from {other.study_name}"
    if len(other.directions) != 1:
        raise InputError(f"{where}: it has {len(other.directions)} objectives; use a study with one")
    if StudyKey.REFIT_OF in about:
        raise InputError(f"{where}: it is a refit of {about[StudyKey.REFIT_OF]}; use that study")
    tuned = about.get(StudyKey.AGENT, agent)
    if tuned != agent:
        raise InputError(f"{where}: it tunes {tuned}, and this study {agent}; use one of the same agent")
    trials = ranked(other)
    if not trials:
        raise InputError(f"{where}: it has no complete trial; run `tune` for it first, or use another study")
    return trials


def _check_fix(fix: Sequence[str], known: Collection[str], searched: Collection[str], other: optuna.Study) -> None:
    problems = [
        f"--study.fix: {flag}: {other.study_name} has no value of it{nearest(flag, known) or '; remove it'}"
        for flag in fix
        if flag not in known
    ]
    if searched and not problems and set(searched) <= set(fix):
        problems = ["--study.fix: it contains every flag of the search space; fix fewer, so that one is searched"]
    if problems:
        raise InputError(problems)


def distinct_points(points: Iterable[Mapping[str, Any]], flags: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the values that points have for some flags, without duplicates and empty points."""
    distinct: list[Mapping[str, Any]] = []
    for values in points:
        point = {flag: values[flag] for flag in flags if flag in values}
        if point and point not in distinct:
            distinct.append(point)
    return distinct
