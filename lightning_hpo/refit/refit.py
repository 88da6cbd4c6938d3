"""Training of a study's best trials with other seeds, and one score on the test split.

A refit is a study whose trials are pairs of a candidate and a seed, so it pauses, resumes and records like any other.
It trains all candidates with one seed before it uses the next.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from lightning_hpo.config.agent_cli import flags, read_yaml, resolve
from lightning_hpo.exceptions import InputError
from lightning_hpo.refit.conclusion import conclude
from lightning_hpo.refit.result import CANDIDATES, SEED, TRIAL, RefitResult
from lightning_hpo.storage.settings import StudySettings
from lightning_hpo.storage.studies import create_study, find_study, load_study, ranked
from lightning_hpo.study.checks import check_settings, check_start
from lightning_hpo.study.lock import lock_study
from lightning_hpo.study.spec import StudySpec
from lightning_hpo.study_folder import CONFIG
from lightning_hpo.tracking.tracker import PARENT, Tracker
from lightning_hpo.tune import Drawn, describe, exit_with_one_line_error, train, workers_for

__all__ = ["SUFFIX", "RefitSettings", "refit"]

SUFFIX = "-refit"
_OF = "refit_of"
_DRAW_SEED = "data.draw_seed"
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass(frozen=True)
class RefitSettings:
    """Settings of a refit.

    Args:
        study: Name of the searched study.
        storage: Optuna's database.
        tracking_uri: MLflow's database or server.
        trials: Number of best trials to train.
        seeds: Number of seeds for each of them.
        workers: Number of trials that train at the same time.
        devices: GPUs that trials may use.
        per_device: Number of trials that share a GPU.
        test: Whether to score the test split in the end.
    """

    study: str
    storage: str
    tracking_uri: str
    trials: int = 3
    seeds: int = 5
    workers: int = 1
    devices: list[int] | Literal["auto"] = "auto"
    per_device: int = 1
    test: bool = True

    def problems(self) -> list[str]:
        """Return one line for each invalid setting."""
        return [
            f"--{name}: got {getattr(self, name)}; use 1 or more"
            for name in ("trials", "seeds", "workers", "per_device")
            if getattr(self, name) < 1
        ]


def refit(settings: RefitSettings) -> int:
    """Train the best trials of a study with other seeds; once all have ended, say what their scores are worth.

    Returns:
        The command's exit code: 0, or 128 and the signal's number when a signal stopped it.

    Raises:
        InputError: If it cannot start; nothing has been written then.
        LightningHpoError: If too many trials in a row have failed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if problems := settings.problems():
        raise InputError(problems)
    searched = load_study(settings.study, settings.storage)
    candidates = _candidates(searched, settings)
    configs = {number: _config(searched, number) for number in candidates}
    spec = _spec(searched, settings, configs[candidates[0]], len(candidates))
    workers = workers_for(spec)
    spec, space, _ = check_settings(spec)
    with lock_study(spec.settings.folder) as known, exit_with_one_line_error(workers):
        about = check_start(spec, space, workers, known=known)
        _refuse_other_data(searched, about)
        tracker = Tracker(settings.tracking_uri)
        experiment = tracker.experiment(spec.experiment)
        parent = tracker.study_run(experiment, str(spec.settings.name), spec.agent, name="refit")
        first_seed = _first_seed(configs[candidates[0]])
        study = create_study(spec.settings, optuna.samplers.RandomSampler(), optuna.pruners.NopPruner())
        describe(study, {**about, _OF: settings.study, CANDIDATES: candidates})

        def draw(trial: optuna.Trial) -> Drawn:
            turn, place = divmod(trial.number, len(candidates))
            number, seed = candidates[place], first_seed + turn
            # Ranges of one value: the number of the trial says all, so there is nothing to sample.
            drawn = {TRIAL: trial.suggest_int(TRIAL, number, number), SEED: trial.suggest_int(SEED, seed, seed)}
            return drawn, _seeded(configs[number], seed)

        code = train(replace(spec, tags={PARENT: parent}), study, tracker, experiment, workers, draw)
        if code == 0 and len(study.get_trials(deepcopy=False, states=_ENDED)) >= spec.settings.n_trials:
            conclude(RefitResult(searched, study), tracker, parent, workers, test=settings.test)
    return code


def _candidates(searched: optuna.Study, settings: RefitSettings) -> list[int]:
    """Return the numbers of the trials to refit, the best first. A resumed refit keeps its candidates."""
    if "agent" not in searched.user_attrs:
        raise InputError(f"{settings.study}: the study was not created by `tune`, so its trials have no configs")
    if _OF in searched.user_attrs:
        raise InputError(f"{settings.study}: it is a refit itself; name the study, {searched.user_attrs[_OF]}")
    begun = find_study(StudySettings(name=settings.study + SUFFIX, storage=settings.storage))
    if begun is not None and CANDIDATES in begun.user_attrs:
        had: list[int] = begun.user_attrs[CANDIDATES]
        if len(had) != settings.trials:
            raise InputError(f"--trials: got {settings.trials}; {begun.study_name} was started with {len(had)}: {had}")
        return had
    complete = ranked(searched)
    if len(complete) < settings.trials:
        raise InputError(f"--trials: got {settings.trials}; {settings.study} has only {len(complete)} complete")
    return [trial.number for trial in complete[: settings.trials]]


def _config(searched: optuna.Study, number: int) -> dict[str, Any]:
    path = Path(searched.user_attrs["outdir"]) / f"trial_{number}" / CONFIG
    try:
        return resolve(read_yaml(path.read_text(encoding="utf-8")), {})
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file; restore the config of trial {number} from the artifacts of its MLflow run"
        ) from None
    except InputError as error:
        raise InputError([f"{path}: {problem}" for problem in error.problems]) from error


def _spec(searched: optuna.Study, settings: RefitSettings, config: dict[str, Any], candidates: int) -> StudySpec:
    about = searched.user_attrs
    study = StudySettings(
        name=settings.study + SUFFIX,
        n_trials=candidates * settings.seeds,
        workers=settings.workers,
        devices=settings.devices,
        per_device=settings.per_device,
        monitor=about["monitor"],
        mode=about["mode"],
        outdir=str(Path(about["outdir"]).parent),
        keep=candidates * settings.seeds,  # which of them is wanted shows at the end
        register=False,
        storage=settings.storage,
        tracking_uri=settings.tracking_uri,
    )
    command = f"lightning-hpo refit {shlex.quote(settings.study)} --trials {candidates} --seeds {settings.seeds}"
    return StudySpec(config, {}, study, counted=_ENDED, command=command)


def _refuse_other_data(searched: optuna.Study, about: Mapping[str, Any]) -> None:
    had, has = searched.user_attrs.get("data_fingerprint"), about["data_fingerprint"]
    if had != has:
        raise InputError(
            f"{searched.study_name}: it was tuned on data with the fingerprint {had}, and what its configs name now "
            f"has {has}; scores on other data cannot be compared"
        )


def _first_seed(config: Mapping[str, Any]) -> int:
    """Return the seed after that of the search, which has already influenced the choice of the candidates."""
    return int(config[SEED]) + 1


def _seeded(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the config with another seed for everything random except the split of the data."""
    drawn = {_DRAW_SEED: seed} if _DRAW_SEED in flags(config) else {}
    return resolve(config, {SEED: seed, **drawn})
