"""Reproduction of a trial: the command that retrains it, what has changed since, and the value that it gets now."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import optuna
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import StudyKey, folder_of, run_id_of
from lightning_hpo.storage.objective import Objective
from lightning_hpo.storage.studies import require_tuned
from lightning_hpo.study_folder import TrialFolder, fit_command
from lightning_hpo.tracking.environment import environment_tags
from lightning_hpo.tracking.errors import cause_of
from lightning_hpo.tracking.tracker import AWAY, Tracker
from lightning_hpo.trial.config import check_config, has_config, logged_config
from lightning_hpo.trial.run import device_name
from lightning_hpo.trial.trainer import build_trial

__all__ = ["reproduce"]

_LABELS = {"mlflow.source.git.commit": "git commit", "git_dirty": "uncommitted changes"}
_FINGERPRINT = "data_fingerprint"


def reproduce(
    study: optuna.Study,
    tracker: Tracker,
    number: int | None,
    *,
    run: bool,
    interruption: Callback | None = None,
) -> Iterator[str]:
    """Print the command that retrains a trial, by default the best one, and what has changed since.

    With `run`, also retrain the trial and compare its value; `interruption` may stop it. The study is not modified. A
    config from MLflow is only used with `run`: who may write there could name any class of this machine.

    Yields:
        The lines to print: the command, one line for each change, and the comparison.

    Raises:
        InputError: If the trial or its config does not exist, or the config cannot be trained now.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    trial = _trial(study, number)
    if run and trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        raise InputError(f"--run: trial {trial.number} is {trial.state.name}, so it has no value to compare with")
    now = environment_tags()  # before `_config` may write a file, which would count as an uncommitted change
    config = _config(study, trial, tracker)
    yield fit_command(config)
    trusted = run or config == folder_of(study).trial(trial.number).config
    problems = _add_data_and_device(config, now) if trusted else []
    yield from _changes(study, trial, tracker, now)
    if not trusted:  # the classes that it names would run
        yield f"data and device are not compared: {config} is from MLflow; read it, and add --run"
    if problems:
        raise InputError([f"trial {trial.number} cannot be retrained: {problem}" for problem in problems])
    if run:
        values = _retrain(study, trial, config, interruption)
        yield _comparison(trial, values, Objective.of(study))


def _trial(study: optuna.Study, number: int | None) -> FrozenTrial:
    require_tuned(study, "configs")
    trials = study.get_trials(deepcopy=False)
    if number is None:
        try:
            return study.best_trial
        except ValueError:
            raise InputError(f"{study.study_name}: no trial is complete yet; select one with --trial") from None
    if not 0 <= number < len(trials):
        raise InputError(f"--trial: got {number}; {study.study_name} has trials 0 to {len(trials) - 1}")
    return trials[number]


def _config(study: optuna.Study, trial: FrozenTrial, tracker: Tracker) -> Path:
    """Return the trial's config file. If its folder was deleted, copy the config from MLflow to the current folder."""
    folder = folder_of(study).trial(trial.number)
    path = folder.config
    check_config(trial, folder)
    if has_config(folder):
        return path
    text = logged_config(study, trial, tracker)
    copy = Path(f"{study.study_name.replace('/', '_')}-trial_{trial.number}.yaml")
    try:
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            with copy.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{path}: no such file, and its copy from MLflow cannot be written to {copy} ({reason}); move that file, "
            "or change to another folder"
        ) from error
    return copy


def _changes(study: optuna.Study, trial: FrozenTrial, tracker: Tracker, now: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for each difference between the tags of the trial's run and those of now."""
    run_id = run_id_of(study, trial)
    try:
        before = {} if run_id is None else tracker.tags(run_id)
    except AWAY as error:
        yield f"changes since then are unknown: MLflow {cause_of(error)}"
        return
    if not before:
        yield "changes since then are unknown: the trial has no run"
        return
    changes = [
        f"{_LABELS.get(tag, tag.removeprefix('version.'))}: was {before.get(tag, 'none')}, is {now[tag]}"
        for tag in sorted(now)
        if before.get(tag) != now[tag]
    ]
    yield from changes
    if "true" in (before.get("git_dirty"), now.get("git_dirty")):
        yield "git: with uncommitted changes, equal commits do not mean equal code"
    if not changes and _FINGERPRINT in now:
        yield "no changes: commit, packages, data and device are the same"


def _add_data_and_device(config: Path, now: dict[str, str]) -> list[str]:
    """Load the data, and add their fingerprint and the device to the tags. Return the problems of the config."""
    try:
        cli = _built(config, Path.cwd(), [])  # writes nothing there, since it does not train
        cli.datamodule.prepare_data()
        cli.datamodule.setup("fit")
    except InputError as error:
        return error.problems
    now |= {"device": device_name(cli.trainer), _FINGERPRINT: str(getattr(cli.datamodule, "fingerprint", None))}
    return []


class _Values(Callback):
    """Record the metric of each epoch, and stop after as many epochs as the trial had."""

    def __init__(self, monitor: str, epochs: int) -> None:
        self._monitor, self._epochs = monitor, epochs
        self.values: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the value of the epoch."""
        del pl_module
        if not trainer.sanity_checking:
            self.values.append(float(trainer.callback_metrics[self._monitor]))
            trainer.should_stop = trainer.should_stop or len(self.values) >= self._epochs


def _retrain(study: optuna.Study, trial: FrozenTrial, config: Path, interruption: Callback | None) -> list[float]:
    """Return the monitored value of each epoch of a new training."""
    recorder = _Values(study.user_attrs[StudyKey.MONITOR], len(trial.intermediate_values))
    with tempfile.TemporaryDirectory() as folder:
        _built(config, Path(folder), [recorder, *([] if interruption is None else [interruption])]).train()
    return recorder.values


def _built(config: Path, folder: Path, callbacks: Sequence[Callback]) -> AgentCLI:
    """Create what a trial trains, with a progress bar."""
    values = AgentCLI(["--config", str(config)], instantiate=False).values
    return build_trial(values, TrialFolder(folder), callbacks, enable_progress_bar=True)


def _comparison(trial: FrozenTrial, values: list[float], objective: Objective) -> str:
    now = values[-1] if trial.state == TrialState.PRUNED else objective.best(values)
    before = float(trial.value or 0.0)
    return f"value: was {before:.6f}, is {now:.6f}, difference {now - before:+.6f}"
