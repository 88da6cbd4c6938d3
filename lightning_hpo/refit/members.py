"""Trials of a refit whose models can be combined: the seeds of the winner that have kept their weights."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from lightning_hpo.config.flags import flags, read_yaml
from lightning_hpo.exceptions import InputError
from lightning_hpo.refit.result import DRAW_SEED, SEED, SUFFIX, TRIAL, RefitResult
from lightning_hpo.storage.attributes import StudyKey, folder_of
from lightning_hpo.storage.objective import Objective
from lightning_hpo.storage.studies import StudyDatabase, require_tuned
from lightning_hpo.study.ownership import owns_folder
from lightning_hpo.study_folder import TrialFolder
from lightning_hpo.tracking.tracker import Tracker
from lightning_hpo.trial.config import restore_config

__all__ = ["Member", "find_members", "find_refit", "seeds_with_weights"]

# Flags in which the trials of one candidate may differ: the seeds, and what a trial that is out of memory halves.
_MAY_DIFFER = {SEED, DRAW_SEED, "data.batch_size", "data.eval_batch_size", "trainer.accumulate_grad_batches"}


@dataclass(frozen=True)
class Member:
    """A trial of a refit whose model is combined with others.

    Args:
        seed: Its seed.
        trial: Its number in the refit.
        folder: Its folder.
    """

    seed: int
    trial: int
    folder: TrialFolder


def find_refit(database: StudyDatabase, name: str, flag: str) -> RefitResult:
    """Return the complete refit of a study.

    Args:
        database: Optuna's database.
        name: Name of the study, or of its refit.
        flag: The flag that asks for it, for errors.

    Raises:
        InputError: If the study does not exist, or has no complete refit here.
    """
    study = database.load(name)
    require_tuned(study, "models")
    searched, refit = _both(database, study, flag)
    total = refit.user_attrs.get(StudyKey.N_TRIALS, 0)
    finished = sum(trial.state.is_finished() for trial in refit.get_trials(deepcopy=False))
    if finished < total:
        raise InputError(
            f"{flag}: {refit.study_name} has finished {finished} of {total} trials; finish it: {_command(refit)}"
        )
    if not owns_folder(refit):
        raise InputError(
            f"{flag}: the folder of {refit.study_name} belongs to the study that it was imported from, or was deleted; "
            "use the original"
        )
    return RefitResult(searched, refit)


def _both(database: StudyDatabase, study: optuna.Study, flag: str) -> tuple[optuna.Study, optuna.Study]:
    """Return the searched study and its refit, given one of them."""
    of = study.user_attrs.get(StudyKey.REFIT_OF)
    if of is not None:
        searched = database.load(of, flag=f"{flag}: {study.study_name} is the refit of")
        if _is_refit_of(study, searched):
            return searched, study
        raise InputError(f"{flag}: {study.study_name} is the refit of an earlier study with the name {of}")
    refit = database.find(study.study_name + SUFFIX)
    if refit is None or not _is_refit_of(refit, study):
        command = f"lightning-hpo refit {shlex.quote(study.study_name)}"
        raise InputError(f"{flag}: {study.study_name} has no refit, which trains the seeds; run: {command}")
    return study, refit


def _is_refit_of(refit: optuna.Study, searched: optuna.Study) -> bool:
    about = refit.user_attrs
    named = about.get(StudyKey.REFIT_OF) == searched.study_name and StudyKey.REFIT_CANDIDATES in about
    return named and about.get(StudyKey.REFIT_OF_ID) in (None, searched.user_attrs.get(StudyKey.ID))


def seeds_with_weights(result: RefitResult) -> list[Member]:
    """Return the seeds of the winner that have kept their weights, the best first."""
    objective, folder = Objective.of(result.study), folder_of(result.study)
    own = [
        trial
        for trial in result.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trial.params[TRIAL] == result.winner.trial and folder.trial(trial.number).best.is_file()
    ]
    own.sort(key=lambda trial: (objective.sort_key(trial.value or 0.0), trial.number))
    return [Member(trial.params[SEED], trial.number, folder.trial(trial.number)) for trial in own]


def find_members(result: RefitResult, tracker: Tracker, flag: str) -> list[Member]:
    """Return at least two seeds of the winner that have kept their weights, the best first.

    Raises:
        InputError: If there are fewer, or their configs differ in more than the seed.
    """
    members = seeds_with_weights(result)
    if len(members) < 2:
        raise InputError(f"{flag}: {_too_few(result, len(members))}")
    trials = result.study.get_trials(deepcopy=False)
    for member in members:
        restore_config(result.study, trials[member.trial], tracker)
    first = _compared(members[0])
    for member in members[1:]:
        own = _compared(member)
        changed = sorted(name for name in {*first, *own} if first.get(name) != own.get(name))
        if changed:
            raise InputError(
                f"{flag}: {members[0].folder.config} and {member.folder.config} differ in --{', --'.join(changed)}; "
                "only models of the same config can be combined"
            )
    return members


def _compared(member: Member) -> Mapping[str, Any]:
    values = flags(read_yaml(member.folder.config.read_text(encoding="utf-8")))
    return {name: value for name, value in values.items() if name not in _MAY_DIFFER}


def _too_few(result: RefitResult, weights: int) -> str:
    """Return why there are fewer than two seeds to combine, and the command that trains more."""
    winner, name = result.winner, result.study.study_name
    scored, tried = len(winner.scores), len(winner.scores) + len(winner.failures)
    # Finished seeds are not trained again. An earlier version, and --keep 1, have kept the weights of one at most.
    seeds = tried + 2 - weights
    candidates = len(result.study.user_attrs[StudyKey.REFIT_CANDIDATES])
    command = f"lightning-hpo refit {shlex.quote(result.searched.study_name)} --trials {candidates} --seeds {seeds}"
    if scored < 2:
        failed = f" ({len(winner.failures)} failed)" if winner.failures else ""
        had = f"{name} has {scored} seed{'s' * (scored != 1)} of its winner, trial {winner.trial}{failed}"
    else:
        had = f"{name} has kept the weights of {weights} of the {scored} seeds of its winner, trial {winner.trial}"
    return f"{had}, and two are needed; train more seeds: {command}"


def _command(refit: optuna.Study) -> str:
    return str(refit.user_attrs.get(StudyKey.COMMAND, f"lightning-hpo refit {refit.user_attrs[StudyKey.REFIT_OF]}"))
