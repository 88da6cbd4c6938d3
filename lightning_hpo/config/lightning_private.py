"""The only module that uses private names of Lightning.

Lightning has no public way to restart the train loader, to restore its position, to correct the restart flags of the
loops, to ask whether validation comes next, how many batches a limit leaves or whether a strategy starts processes, or
to replace steps of LightningCLI. The private names are those of Lightning 2.6. Before a newer minor version is allowed,
`tests/callbacks/test_resume_checkpoint.py` and `tests/config` have to pass with it.
"""

import logging
from typing import Any

import lightning
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.trainer.connectors.data_connector import _parse_num_batches
from lightning.pytorch.trainer.states import RunningStage

__all__ = [
    "ReplaceableCLI",
    "clear_restart_flag",
    "close_restarted_epoch",
    "has_resumable_position",
    "limited_batches",
    "restart_train_loader",
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


def has_resumable_position(trainer: Trainer) -> bool:
    """Return whether every train loader can save its position, and no batch is fetched ahead of training.

    Lightning fetches a batch ahead if a loader has no length. The position of the loader would skip that batch.
    """
    from torch.distributed.checkpoint.stateful import Stateful  # slow to import, and only training needs it

    loader, fetcher = trainer.fit_loop._combined_loader, trainer.fit_loop._data_fetcher
    if loader is None or fetcher is None or not all(isinstance(each, Stateful) for each in loader.flattened):
        return False
    return fetcher.fetched == trainer.fit_loop.epoch_loop.batch_progress.current.ready


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
