"""What a trial's Trainer takes from the config, and what the trial decides itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import (
    Callback,
    Checkpoint,
    DeviceStatsMonitor,
    LearningRateMonitor,
    ModelSummary,
    OnExceptionCheckpoint,
    ProgressBar,
)

from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.config.flags import class_of, read_yaml, with_flags
from lightning_hpo.study_folder import TrialFolder

__all__ = ["build_trial", "left_out", "rebuild_trial", "refused_flags"]

_OWNED = {
    "enable_checkpointing": (True, "a trial saves checkpoints"),
    "logger": (False, "the study records params and metrics in MLflow"),
    "enable_progress_bar": (False, "the study shows its own progress"),
    "enable_model_summary": (False, "the study shows its own progress"),
    "barebones": (False, "a trial saves checkpoints"),
    "default_root_dir": (None, "a trial writes to its own folder"),
}
"""Trainer arguments that a trial sets itself: value, and reason. The folder is known later."""

_SHOW_PROGRESS = (ProgressBar, ModelSummary)
_NEED_LOGGER = (LearningRateMonitor, DeviceStatsMonitor)
_ONE_BATCH = "--trainer.max_epochs 1 --trainer.limit_train_batches 1 --trainer.limit_val_batches 1"


def build_trial(
    config: Mapping[str, Any], folder: TrialFolder, callbacks: Sequence[Callback] = (), **trainer: Any
) -> AgentCLI:
    """Create the module, the data module and the Trainer of a trial.

    Args:
        config: Resolved config of the trial.
        folder: Folder of the trial. Checkpoint callbacks of the config write to it.
        callbacks: Callbacks of the trial, added to those of the config.
        trainer: Further arguments of the Trainer, which override the config.
    """
    own = {name: value for name, (value, _) in _OWNED.items()} | {"default_root_dir": str(folder.path)} | trainer
    kept = [_placed(each, folder) for each in _configured(config) if not _reason_to_leave_out(each)]
    # Taken out of the config, so that no logger is created that the trial does not use, and no error names a flag that
    # the user has not set.
    unset = {f"trainer.{name}": False if name == "barebones" else None for name in _OWNED}
    changed = with_flags(config, {**unset, "trainer.callbacks": kept or None})
    return AgentCLI(changed, trainer_kwargs={**own, "callbacks": list(callbacks)})


def rebuild_trial(folder: TrialFolder, callbacks: Sequence[Callback] = (), **trainer: Any) -> AgentCLI:
    """Create what `build_trial` creates from the config in the folder of a trial."""
    config = read_yaml(folder.config.read_text(encoding="utf-8"))  # jsonargparse validates a file's values twice
    return build_trial(config, folder, callbacks, **trainer)


def left_out(config: Mapping[str, Any]) -> list[str]:
    """Return one line for each part of the `trainer` section that a trial replaces or does not use."""
    trainer = config.get("trainer") or {}
    lines = [
        f"--trainer.{name}: {_shown(trainer[name])} is ignored: {reason}"
        for name, (value, reason) in _OWNED.items()
        if trainer.get(name) not in (None, value, *_harmless(name))
    ]
    for each in _configured(config):
        if reason := _reason_to_leave_out(each):
            lines.append(f"--trainer.callbacks: {class_of(each).__name__} is left out: {reason}")
        elif _is_placed_elsewhere(each):
            lines.append(
                f"--trainer.callbacks: {class_of(each).__name__} writes to the folder of its trial, not to "
                f"{each['init_args']['dirpath']}"
            )
    return lines


def refused_flags(config: Mapping[str, Any]) -> list[str]:
    """Return one line for each value of the `trainer` section with which no trial has a score to compare."""
    trainer = config.get("trainer") or {}
    problems = []
    if trainer.get("fast_dev_run"):
        problems.append(
            f"--trainer.fast_dev_run: got {_shown(trainer['fast_dev_run'])}; such a training saves nothing; for a "
            f"quick study, use {_ONE_BATCH}"
        )
    if trainer.get("overfit_batches"):
        problems.append(
            f"--trainer.overfit_batches: got {trainer['overfit_batches']}; it replaces the order of the training "
            "batches; use --trainer.limit_train_batches"
        )
    for name, kind in (("limit_train_batches", "training"), ("limit_val_batches", "validation")):
        if trainer.get(name) is not None and trainer[name] == 0:
            problems.append(f"--trainer.{name}: got {trainer[name]}; a trial needs {kind} batches; use 1 or more")
    return problems


def _configured(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    callbacks = (config.get("trainer") or {}).get("callbacks") or []
    return callbacks if isinstance(callbacks, list) else [callbacks]


def _harmless(name: str) -> tuple[Any, ...]:
    """Return values of an owned argument that say what is the default anyway."""
    return (True,) if name in ("logger", "enable_progress_bar", "enable_model_summary") else ()


def _reason_to_leave_out(callback: Mapping[str, Any]) -> str:
    kind = class_of(callback)
    if issubclass(kind, _SHOW_PROGRESS):
        return "the study shows its own progress"
    if issubclass(kind, _NEED_LOGGER):
        return "it needs a logger; the study records the learning rate and the peak memory in MLflow"
    if issubclass(kind, OnExceptionCheckpoint):
        return "with it, Lightning would choose what to resume from; a trial resumes from its own checkpoints"
    return ""


def _is_placed_elsewhere(callback: Mapping[str, Any]) -> bool:
    return issubclass(class_of(callback), Checkpoint) and bool((callback.get("init_args") or {}).get("dirpath"))


def _placed(callback: dict[str, Any], folder: TrialFolder) -> dict[str, Any]:
    """Return a callback whose checkpoints are in the trial's folder; without `dirpath`, Lightning puts them there."""
    if not _is_placed_elsewhere(callback):
        return callback
    place = folder.checkpoints / Path(callback["init_args"]["dirpath"]).name
    return {**callback, "init_args": {**callback["init_args"], "dirpath": str(place)}}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, Mapping) and "class_path" in value:
        return str(value["class_path"]).rsplit(".", 1)[-1]
    return str(value).lower() if isinstance(value, bool) else str(value)
