"""The only module that uses private names of Lightning.

Lightning has no public way to do the following:

- restart the train loader, or restore its position
- correct the restart flags of the loops, or resume with a validation
- save a state later than it is, or the values that an epoch has logged so far
- ask whether validation comes next, how many batches a limit leaves, or whether a strategy starts processes
- replace steps of LightningCLI

The private names are those of Lightning 2.6. Before a newer minor version is allowed,
`tests/callbacks/test_resume_checkpoint.py` and `tests/config` have to pass with it.
"""

import builtins
import logging
from collections.abc import Callable, Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.trainer.connectors.data_connector import _parse_num_batches
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from lightning.pytorch.trainer.states import RunningStage
from torch import Tensor

__all__ = [
    "ReplaceableCLI",
    "clear_restart_flag",
    "close_restarted_epoch",
    "dump_checkpoint",
    "has_resumable_position",
    "limited_batches",
    "logged_values",
    "mark_before_validation",
    "restart_train_loader",
    "restart_validation",
    "restarts_in_validation",
    "restore_logged_values",
    "restore_train_loader",
    "starts_processes",
    "validates_next",
]

_TESTED = "2.6"

if lightning.__version__.split(".")[:2] != _TESTED.split("."):
    logging.getLogger(__name__).warning(
        "this package is tested with Lightning %s, not %s; install lightning==%s.*",
        _TESTED,
        lightning.__version__,
        _TESTED,
    )


class ReplaceableCLI(LightningCLI):
    """LightningCLI with four of its private steps as public methods, which a subclass can replace."""

    def check_ckpt_path(self) -> None:
        """Process `--ckpt_path` after parsing."""
        super()._parse_ckpt_path()

    def keep_config_dump(self) -> None:
        """Keep the config for `save_hyperparameters`."""
        super()._dump_config()

    def run_subcommand(self, command: str) -> None:
        """Run fit, validate, test or predict."""
        super()._run_subcommand(command)

    def seed(self) -> None:
        """Seed all random number generators."""
        super()._set_seed()

    def created(self, section: str) -> Any:
        """Return a section of the config after the creation of its objects."""
        return self._get(self.config_init, section)

    def _parse_ckpt_path(self) -> None:
        self.check_ckpt_path()

    def _dump_config(self) -> None:
        self.keep_config_dump()

    def _set_seed(self) -> None:
        self.seed()

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_subcommand(subcommand)


def restart_train_loader(trainer: Trainer) -> None:
    """Start the iterator of the train loader again, so that it draws from the present random state."""
    if trainer.fit_loop._data_fetcher is not None:
        iter(trainer.fit_loop._data_fetcher)


def restore_train_loader(trainer: Trainer) -> None:
    """Restore the position of the train loader after a resume within an epoch.

    Lightning loses the position if `configure_optimizers` reads `estimated_stepping_batches`: it then creates the
    loader before it reads the checkpoint (Lightning issue 20550).
    """
    loop = trainer.fit_loop
    if loop.restarted_mid_epoch and loop._combined_loader_states_to_load:
        loop._load_combined_loader_states()
        restart_train_loader(trainer)


def close_restarted_epoch(trainer: Trainer) -> None:
    """Close the epoch that was complete in the checkpoint.

    With `max_steps`, Lightning takes the end of an epoch for a position in it and would run that end twice.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop._restarting = loop.epoch_loop.restarting = False
        loop.reset_restart_stage()
        loop.epoch_loop.reset_restart_stage()
        loop.epoch_progress.increment_completed()


def clear_restart_flag(trainer: Trainer) -> None:
    """Clear the flag that a resume within the epoch has set; with it, Lightning skips a step of a plateau schedule."""
    trainer.fit_loop._restarting = False


def dump_checkpoint(trainer: Trainer) -> dict[str, Any]:
    """Return a checkpoint of the whole state. It shares the tensors of the module and of the optimizer."""
    return trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def mark_before_validation(loops: Mapping[str, Any]) -> None:
    """Change the loops of a checkpoint so that a resume starts with the validation that follows the train batch.

    Lightning does so if the last train batch is complete and a batch of validation is not.
    """
    states = loops["fit_loop"]
    for counts in (states["epoch_loop.batch_progress"][name] for name in ("total", "current")):
        counts["completed"] = counts["processed"]
    validated = states["epoch_loop.val_loop.batch_progress"]["total"]
    validated["ready"] = validated["started"] = validated["completed"] + 1


def restarts_in_validation(trainer: Trainer) -> bool:
    """Return whether a resumed training starts with a validation."""
    return trainer.fit_loop.epoch_loop.val_loop.restarted_mid_evaluation


def restart_validation(trainer: Trainer) -> None:
    """Let a training that restarts in a validation begin with its first batch."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    if loop.restarted_mid_evaluation:
        loop.restarting = False
        loop.batch_progress.total.reset_on_restart()


def logged_values(trainer: Trainer, *, within_epoch: bool) -> dict[str, Any]:
    """Return what `callback_metrics` holds, and within an epoch also what the module has logged to sum up at its end.

    Lightning does not save these. Without them, the values of a resumed epoch would cover only its last batches.
    """
    results = trainer.fit_loop.epoch_loop._results if within_epoch else {}
    return {
        "metrics": {name: value.detach().cpu() for name, value in trainer.callback_metrics.items()},
        "results": {key: _state(result) for key, result in results.items() if not result.has_reset},
    }


def _state(result: _ResultMetric) -> dict[str, Any]:
    meta = dict(vars(result.meta))
    sync: _Sync = meta.pop("_sync")
    reduce, meta["reduce_fx"] = meta["reduce_fx"], meta["reduce_fx"].__name__
    metric = result if result.is_tensor else result.value
    # A copy: the next batch may change the states in place.
    states = {
        name: _changed(value, lambda tensor: tensor.detach().clone()) for name, value in metric.metric_state.items()
    }
    synced = {"_should": sync.should, "rank_zero_only": sync.rank_zero_only}
    builtin = reduce is getattr(builtins, meta["reduce_fx"], None)  # sum instead of torch.sum
    return {"meta": meta, "builtin": builtin, "sync": synced, "states": states, "updates": metric._update_count}


def restore_logged_values(trainer: Trainer, saved: Mapping[str, Any]) -> None:
    """Restore what `logged_values` has returned when the training starts again."""
    connector, device = trainer._logger_connector, trainer.strategy.root_device
    connector._callback_metrics = {name: value.to(device) for name, value in saved["metrics"].items()}
    for key, state in saved["results"].items():
        meta = _Metadata(**state["meta"])
        meta.reduce_fx = getattr(builtins if state["builtin"] else torch, state["meta"]["reduce_fx"])
        meta.sync = _Sync(fn=trainer.strategy.reduce, **state["sync"])
        result = _ResultMetric(meta, is_tensor=meta.metric_attribute is None)
        if meta.metric_attribute is not None:
            result.value = trainer.lightning_module.get_submodule(meta.metric_attribute)
        metric = result if result.is_tensor else result.value
        for name, value in state["states"].items():
            setattr(metric, name, _changed(value, lambda tensor: tensor.to(device)))
        for updated in (metric, result):
            updated._update_count = state["updates"]
        trainer.fit_loop.epoch_loop._results[key] = result
        connector._first_loop_iter = False  # or the first batch would reset them


def _changed(state: Tensor | list[Tensor], change: Callable[[Tensor], Tensor]) -> Tensor | list[Tensor]:
    """Return the state of a metric, which is a tensor or a list of tensors, after a change of each tensor."""
    return [change(tensor) for tensor in state] if isinstance(state, list) else change(state)


def has_resumable_position(trainer: Trainer) -> bool:
    """Return whether every train loader can save its position, or has none left, and no batch is fetched ahead.

    Lightning fetches a batch ahead if a loader has no length. The position of the loader would skip that batch.
    """
    from torch.distributed.checkpoint.stateful import Stateful  # slow to import, and only training needs it

    loader, fetcher = trainer.fit_loop._combined_loader, trainer.fit_loop._data_fetcher
    if loader is None or fetcher is None or fetcher.fetched != trainer.fit_loop.epoch_loop.batch_progress.current.ready:
        return False
    at_end = trainer.fit_loop.epoch_loop._num_ready_batches_reached()
    return at_end or all(isinstance(each, Stateful) for each in loader.flattened)


def validates_next(trainer: Trainer) -> bool:
    """Return whether validation follows the current train batch."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def limited_batches(stage: str, length: float, limit: int | float) -> float:
    """Return the number of batches that a limit such as `limit_val_batches` leaves.

    Raises:
        MisconfigurationException: If it leaves none, or the limit is a share of an unknown number.
    """
    return _parse_num_batches(RunningStage(stage), length, limit)


def starts_processes(trainer: Trainer) -> bool:
    """Return whether the Trainer's strategy trains in processes that it starts, such as `ddp_spawn`."""
    return isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)
