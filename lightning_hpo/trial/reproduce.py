"""One trial again: the command that trains it, what is no longer as it was, and the value that is reached now."""

import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import optuna
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.exceptions import InputError
from lightning_hpo.storage.attributes import run_id_of
from lightning_hpo.study_folder import CONFIG, fit_command
from lightning_hpo.tracking.environment import environment_tags
from lightning_hpo.tracking.tracker import AWAY, Tracker
from lightning_hpo.trial.run import device_name

__all__ = ["reproduce"]

_SHOWN = {"mlflow.source.git.commit": "git commit", "git_dirty": "files changed since that commit"}
_FINGERPRINT = "data_fingerprint"
_QUIET = {"logger": False, "enable_model_summary": False}


def reproduce(study: optuna.Study, tracker: Tracker, number: int | None, *, run: bool) -> Iterator[str]:
    """Say how a trial is made again, and what differs now; nothing of the study is changed.

    Args:
        study: The study.
        tracker: MLflow's side of it.
        number: Number of the trial; None for the best.
        run: Whether to train it, and compare the value.

    Yields:
        Lines.

    Raises:
        InputError: If there is no such trial, its config is gone, or it cannot be trained as it is.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    trial = _trial(study, number)
    if run and trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        raise InputError(f"--run: trial {trial.number} is {trial.state.name}: it has no value to compare with")
    now = environment_tags()  # before a file is written, which would count as a change
    config = _config(study, trial, tracker)
    yield fit_command(config)
    problems = _look_at(config, now)
    yield from _differences(_then(study, trial, tracker), now)
    if problems:
        raise InputError([f"trial {trial.number} cannot be trained as it is: {problem}" for problem in problems])
    if run:
        yield _compared(trial, _values(study, trial, config), study.direction)


def _trial(study: optuna.Study, number: int | None) -> FrozenTrial:
    if "agent" not in study.user_attrs:
        raise InputError(f"{study.study_name}: it was not tuned here, so there are no configs of its trials")
    trials = study.get_trials(deepcopy=False)
    if number is None:
        try:
            return study.best_trial
        except ValueError:
            raise InputError(f"{study.study_name}: no trial is complete yet; name one with --trial") from None
    if not 0 <= number < len(trials):
        raise InputError(f"--trial: got {number}; {study.study_name} has the trials 0 to {len(trials) - 1}")
    return trials[number]


def _config(study: optuna.Study, trial: FrozenTrial, tracker: Tracker) -> Path:
    """The trial's config, from its folder; where that is gone, written anew from its run."""
    path = Path(study.user_attrs["outdir"]) / f"trial_{trial.number}" / CONFIG
    run_id = run_id_of(study, trial)
    if path.is_file():
        return path
    if run_id is None:
        raise InputError(f"{path}: the config of trial {trial.number} is gone, and it has no run that holds it")
    try:
        text = tracker.text(run_id, CONFIG)
    except AWAY as error:
        reason = type(error).__name__
        raise InputError(f"{path}: the config is gone, and its run {run_id} does not give it ({reason})") from error
    anew = Path(f"{study.study_name}-trial_{trial.number}.yaml")
    try:
        if not anew.exists() or anew.read_text(encoding="utf-8") != text:
            with anew.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{path}: the config is gone, and {anew}, where it would be written anew from its run, cannot be"
            f" ({reason}); move that, or go to another folder"
        ) from error
    return anew


def _then(study: optuna.Study, trial: FrozenTrial, tracker: Tracker) -> Mapping[str, str]:
    """What the trial's run says it was made with; nothing where MLflow does not say."""
    run_id = run_id_of(study, trial)
    try:
        return {} if run_id is None else tracker.tags(run_id)
    except AWAY:
        return {}


def _differences(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    if not then:
        yield "what it was made with is not known: its run is gone, or MLflow does not answer"
        return
    found = [
        f"{_SHOWN.get(tag, tag.removeprefix('version.'))}: {then.get(tag, 'none')} then, {now[tag]} now"
        for tag in sorted(now)
        if then.get(tag) != now[tag]
    ]
    yield from found
    if "true" in (then.get("git_dirty"), now.get("git_dirty")):
        yield "git: files were changed and not committed, so the commit does not say all"
    if not found and _FINGERPRINT in now:
        yield "nothing differs: commit, packages, data and device are as they were"


def _look_at(config: Path, now: dict[str, str]) -> list[str]:
    """Add data and device to what it would be made with now; give why it cannot be made."""
    try:
        cli = AgentCLI(["--config", str(config)], trainer_kwargs=_QUIET)
        cli.datamodule.prepare_data()
        cli.datamodule.setup("fit")
    except InputError as error:
        return error.problems
    now |= {"device": device_name(cli.trainer), _FINGERPRINT: str(getattr(cli.datamodule, "fingerprint", None))}
    return []


class _Values(Callback):
    """Keeps the metric of each epoch, and stops where the trial was stopped."""

    def __init__(self, monitor: str, epochs: int) -> None:
        self._monitor, self._epochs = monitor, epochs
        self.values: list[float] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the epoch's value."""
        del pl_module
        if not trainer.sanity_checking:
            self.values.append(float(trainer.callback_metrics[self._monitor]))
            trainer.should_stop = trainer.should_stop or len(self.values) >= self._epochs


def _values(study: optuna.Study, trial: FrozenTrial, config: Path) -> list[float]:
    epochs = _Values(study.user_attrs["monitor"], len(trial.intermediate_values))
    with tempfile.TemporaryDirectory() as folder:
        kwargs = {**_QUIET, "callbacks": [epochs], "default_root_dir": folder}
        cli = AgentCLI(["--config", str(config)], trainer_kwargs=kwargs)
        cli.trainer.fit(cli.model, cli.datamodule)
    return epochs.values


def _compared(trial: FrozenTrial, values: list[float], direction: StudyDirection) -> str:
    best = max if direction == StudyDirection.MAXIMIZE else min
    now = values[-1] if trial.state == TrialState.PRUNED else best(values)
    then = float(trial.value or 0.0)
    return f"value: {then:.6f} then, {now:.6f} now, difference {now - then:+.6f}"
