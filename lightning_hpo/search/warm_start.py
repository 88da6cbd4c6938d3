"""What a study takes over from another one: its best points, fixed values, and what ranges are narrowed around.

It is decided once, when the study begins, and kept in it: what becomes of the other study afterwards changes nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna

from lightning_hpo.config.errors import nearest
from lightning_hpo.exceptions import InputError
from lightning_hpo.search.dimension import unlabelled
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import find_study, load_study, ranked

__all__ = ["STARTED_FROM", "WarmStart", "find_warm_start"]

STARTED_FROM = "started_from"
_MEASURED = ("monitor", "mode", "data_fingerprint")


@dataclass(frozen=True)
class WarmStart:
    """Another study, as far as a study starts from it. Values are as Optuna stores them.

    Args:
        study: Name of the other study.
        trial: Number of its best trial.
        value: That trial's value.
        best: That trial's values by flag, those that the other study had fixed among them.
        points: Values of its best trials, as far as their flags are searched now, the best first.
        measured: What the other study's values are of: metric, mode, fingerprint of the data.
        queue: How many points were asked for.
        narrow: Share of its range that a flag keeps.
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
        """Value of each fixed flag; one that the best trial did not have keeps that of the config."""
        return {flag: unlabelled(self.best[flag]) for flag in self.fix if flag in self.best}

    def record(self) -> dict[str, Any]:
        """What the study keeps of it."""
        return asdict(self)

    def problems(self, about: Mapping[str, Any]) -> list[str]:
        """Why its best is not to be relied on: it is the best of something else.

        Args:
            about: What the study that starts from it says of itself.
        """
        other = self._other(about)
        flags = [f"--study.{flag}" for flag in ("narrow", "fix") if getattr(self, flag)]
        if not other or not flags:
            return []
        return [
            f"{', '.join(flags)}: {self.study} was tuned with {other}, so that its best need not be the best here; "
            "without them, its best points are tried all the same"
        ]

    def line(self, about: Mapping[str, Any]) -> str:
        """Say what is taken over.

        Args:
            about: What the study that starts from it says of itself.
        """
        within = "" if self.narrow is None else ", where they are in the ranges"
        parts = [f"first the defaults, then {len(self.points)} of its best points{within}"]
        parts += [f"fixed: {', '.join(self.fix)}"] if self.fix else []
        parts += [f"ranges narrowed to {self.narrow:g} of them around its best"] if self.narrow is not None else []
        other = self._other(about)
        parts += [f"it was tuned with {other}, so its values cannot be compared with these"] if other else []
        return f"starts from {self.study}, best {self.value:.4f} in trial {self.trial}: {'; '.join(parts)}"

    def _other(self, about: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{key} {self.measured.get(key)} (here {about[key]})"
            for key in _MEASURED
            if self.measured.get(key) != about[key]
        )


def find_warm_start(settings: StudySettings, agent: str, searched: Collection[str]) -> WarmStart | None:
    """What the study of these settings starts from; None if that is no other study.

    Args:
        settings: The study's settings; none of them is a problem.
        agent: What it tunes.
        searched: The flags of its search space.

    Raises:
        InputError: If the other study cannot be started from, or the study has begun otherwise.
    """
    own = find_study(settings)
    if own is None or "agent" not in own.user_attrs:
        return None if settings.from_ is None else _begin(settings, agent, searched)
    had = own.user_attrs.get(STARTED_FROM)
    warm_start = None if had is None else WarmStart(**had)
    if problems := _changes(own, warm_start, settings):
        raise InputError(problems)
    return warm_start


def _changes(own: optuna.Study, warm_start: WarmStart | None, settings: StudySettings) -> list[str]:
    pairs: dict[str, tuple[Any, Any]] = {"from": (warm_start and warm_start.study, settings.from_)}
    if warm_start is not None:
        pairs |= {flag: (getattr(warm_start, flag), getattr(settings, flag)) for flag in ("queue", "narrow", "fix")}
    return [
        f"--study.{flag}: got {has}; {own.study_name} was begun with {had}: go on with the same, or give the study "
        "another --study.name"
        for flag, (had, has) in pairs.items()
        if had != has
    ]


def _begin(settings: StudySettings, agent: str, searched: Collection[str]) -> WarmStart:
    other = load_study(str(settings.from_), settings.storage_url, flag="--study.from")
    about, name = other.user_attrs, other.study_name
    if len(other.directions) != 1:
        raise InputError(f"--study.from {name}: it has {len(other.directions)} objectives, and so no best trial")
    if "refit_of" in about:
        raise InputError(f"--study.from {name}: it is the refit of {about['refit_of']}; name that study")
    if about.get("agent", agent) != agent:
        raise InputError(f"--study.from {name}: its agent is {about['agent']}, and this is {agent}; name another study")
    trials = ranked(other)
    if not trials:
        raise InputError(f"--study.from {name}: no trial of it is complete yet; tune it first, or name another study")
    kept = WarmStart(**about[STARTED_FROM]) if STARTED_FROM in about else None
    fixed = {} if kept is None else {flag: kept.best[flag] for flag in kept.fix if flag in kept.best}
    # One that is searched here, too, may be of a choice that none of its trials has made.
    known = {*fixed, *searched, *(flag for trial in trials for flag in trial.params)}
    if unknown := [flag for flag in settings.fix if flag not in known]:
        raise InputError(
            [f"--study.fix: {flag}: {name} has no value of it{nearest(flag, known)}" for flag in unknown],
        )
    wanted = [flag for flag in searched if flag not in settings.fix]
    if searched and not wanted:
        raise InputError("--study.fix: it has every flag of the search space, so nothing is left to search; fix fewer")
    points: list[Mapping[str, Any]] = []
    for trial in trials:
        values = fixed | trial.params
        point = {flag: values[flag] for flag in wanted if flag in values}
        if point and point not in points and len(points) < settings.queue:
            points.append(point)
    if settings.queue and not points and not settings.fix:
        raise InputError(
            f"--study.from {name}: none of its trials has a value of a flag that is searched here, so there is nothing "
            "to start from; name another study"
        )
    return WarmStart(
        study=name,
        trial=trials[0].number,
        value=float(trials[0].value or 0.0),
        best=fixed | trials[0].params,
        points=points,
        measured={key: about.get(key) for key in _MEASURED},
        queue=settings.queue,
        narrow=settings.narrow,
        fix=settings.fix,
    )
