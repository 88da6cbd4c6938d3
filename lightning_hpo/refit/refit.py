"""Training of a study's best trials with other seeds, and one score on the test split.

A refit is a study whose trials are pairs of a candidate and a seed, so it pauses, resumes and records like any other.
It trains all candidates with one seed before it uses the next.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from jsonargparse import Namespace
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.config.agent_cli import resolve
from lightning_hpo.config.flags import flags, read_yaml
from lightning_hpo.databases import DatabaseUrl
from lightning_hpo.exceptions import InputError
from lightning_hpo.refit.conclusion import conclude
from lightning_hpo.refit.result import DRAW_SEED, SEED, SUFFIX, TRIAL, RefitResult
from lightning_hpo.storage.attributes import StudyKey, folder_of
from lightning_hpo.storage.settings import StudySettings, trial_timeout_problems
from lightning_hpo.storage.studies import StudyDatabase, ranked, require_tuned
from lightning_hpo.study.session import local_workers, open_session
from lightning_hpo.study.spec import Sample, StudySpec
from lightning_hpo.tracking.study_run import study_run
from lightning_hpo.tracking.tracker import PARENT, Tracker
from lightning_hpo.trial.config import restore_config
from lightning_hpo.tune import default_callbacks, run

__all__ = ["RefitSettings", "refit"]

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
        per_device: Number of trials that share a GPU.
        trial_timeout: Seconds without a sign of life after which a trial's process is killed; None for never.
        test: Whether to score the test split in the end.
        keep: Number of the winner's best seeds that keep their weights; None for all.
    """

    study: str
    storage: DatabaseUrl
    tracking_uri: str
    trials: int = 3
    seeds: int = 5
    workers: int = 1
    per_device: int = 1
    trial_timeout: float | None = None
    test: bool = True
    keep: int | None = None


def refit(settings: RefitSettings) -> int:
    """Train the best trials of a study again with other seeds, then report what their scores are worth.

    Returns:
        The command's exit code: 0, or 128 and the signal's number if a signal stopped it.

    Raises:
        InputError: If it cannot start; nothing has been written then.
        LightningHpoError: If too many trials in a row have failed.
    """
    counts = {name: getattr(settings, name) for name in ("trials", "seeds", "workers", "per_device", "keep")}
    problems = [
        f"--{name}: got {count}; use 1 or more" for name, count in counts.items() if count is not None and count < 1
    ]
    problems += trial_timeout_problems("--trial_timeout", settings.trial_timeout)
    if problems:
        raise InputError(problems)
    database = StudyDatabase(settings.storage, StudySettings.storage_wait)
    searched = database.load(settings.study)
    candidates = _candidates(searched, database, settings)
    tracker = Tracker(settings.tracking_uri)
    configs = {number: _config(searched, number, tracker) for number in candidates}
    spec = _spec(searched, settings, configs)
    workers = local_workers(spec)
    with open_session(spec, workers, database) as session:
        name, study_id = session.study.study_name, session.study.user_attrs[StudyKey.ID]
        parent = study_run(session.tracker, session.experiment, name, spec.agent, name="refit", study_id=study_id)
        session.run_tags[PARENT] = parent
        run(session, default_callbacks(session))
        session.send_all()
        code = session.finish()
        if code == 0 and session.complete:
            result = RefitResult(searched, session.study)
            conclude(result, session.tracker, parent, workers, test=settings.test, keep=settings.keep)
    return code


def _candidates(searched: optuna.Study, database: StudyDatabase, settings: RefitSettings) -> list[int]:
    """Return the numbers of the trials to refit, the best first. A resumed refit keeps its candidates."""
    require_tuned(searched, "configs")
    if StudyKey.REFIT_OF in searched.user_attrs:
        raise InputError(
            f"{settings.study}: it is a refit itself; name the study, {searched.user_attrs[StudyKey.REFIT_OF]}"
        )
    begun = database.find(settings.study + SUFFIX)
    if begun is not None and StudyKey.REFIT_CANDIDATES in begun.user_attrs:
        if begun.user_attrs.get(StudyKey.REFIT_OF_ID) not in (None, searched.user_attrs.get(StudyKey.ID)):
            raise InputError(
                f"{begun.study_name}: it is the refit of an earlier study with the name {settings.study}; delete it "
                "with its folder, or run the search under another --study.name"
            )
        had: list[int] = begun.user_attrs[StudyKey.REFIT_CANDIDATES]
        if len(had) != settings.trials:
            raise InputError(f"--trials: got {settings.trials}; {begun.study_name} was started with {len(had)}: {had}")
        return had
    complete = ranked(searched)
    chosen: list[FrozenTrial] = []
    for trial in complete:
        # The same values twice would be compared with themselves.
        if len(chosen) < settings.trials and trial.params not in [each.params for each in chosen]:
            chosen.append(trial)
    if len(chosen) < settings.trials:
        what = f"has only {len(chosen)} complete trials with different values"
        raise InputError(f"--trials: got {settings.trials}; {settings.study} {what}")
    return [trial.number for trial in chosen]


def _config(searched: optuna.Study, number: int, tracker: Tracker) -> dict[str, Any]:
    path = restore_config(searched, searched.get_trials(deepcopy=False)[number], tracker)
    try:
        return resolve(read_yaml(path.read_text(encoding="utf-8")), {})
    except InputError as error:
        raise InputError([f"{path}: {problem}" for problem in error.problems]) from error


def _spec(searched: optuna.Study, settings: RefitSettings, configs: Mapping[int, Mapping[str, Any]]) -> StudySpec:
    attributes, candidates = searched.user_attrs, list(configs)
    total = len(candidates) * settings.seeds
    study = StudySettings(
        name=settings.study + SUFFIX,
        n_trials=total,
        workers=settings.workers,
        per_device=settings.per_device,
        trial_timeout=settings.trial_timeout,
        monitor=attributes[StudyKey.MONITOR],
        mode=attributes[StudyKey.MODE],
        outdir=str(folder_of(searched).path.parent),
        keep=total,  # the one that is wanted is known only at the end
        register=False,
        storage=settings.storage.url,
        tracking_uri=settings.tracking_uri,
    )
    first = configs[candidates[0]]
    numbers = ["--trials", str(len(candidates)), "--seeds", str(settings.seeds)]
    return StudySpec(
        first,
        {},
        study,
        sampler=_class("optuna.samplers.RandomSampler"),
        pruner=_class("optuna.pruners.NopPruner"),
        # The seed of the search has already influenced the choice of the candidates.
        sample=partial(_sample, configs, int(first[SEED]) + 1),
        attributes={
            StudyKey.REFIT_OF: settings.study,
            StudyKey.REFIT_OF_ID: attributes.get(StudyKey.ID),
            StudyKey.REFIT_CANDIDATES: candidates,
        },
        data_fingerprint=attributes.get(StudyKey.DATA_FINGERPRINT),
        counted=_ENDED,
        command=shlex.join(["lightning-hpo", "refit", settings.study, *numbers]),
    )


def _sample(configs: Mapping[int, Mapping[str, Any]], first_seed: int, trial: optuna.Trial) -> Sample:
    """Return the candidate and the seed that follow from the number of the trial: each seed for all candidates."""
    turn, place = divmod(trial.number, len(configs))
    number, seed = list(configs)[place], first_seed + turn
    # Ranges of one value: nothing is sampled, and the values stand in both databases.
    values = {TRIAL: trial.suggest_int(TRIAL, number, number), SEED: trial.suggest_int(SEED, seed, seed)}
    # Everything random is seeded, except the split of the data.
    drawn = {DRAW_SEED: seed} if DRAW_SEED in flags(configs[number]) else {}
    return Sample(values, resolve(configs[number], {SEED: seed, **drawn}))


def _class(path: str) -> Namespace:
    return Namespace(class_path=path, init_args=Namespace())  # type: ignore[no-untyped-call]
