"""Step of a validation, under which both databases store its values."""

import math

from lightning.pytorch import Trainer

__all__ = ["at_epoch_end", "step_of_epoch_end", "step_of_validation"]


def step_of_validation(trainer: Trainer) -> int:
    """Return the step of the validation that has just run, from 0.

    With one validation in an epoch, this is the epoch. With several, steps count them: with two, epoch 3 has the steps
    6 and 7. The step follows from the position in the training, so a resumed training gets the same steps.

    A validation after a fixed number of batches over all epochs (`check_val_every_n_epoch: null`) has the number of
    such intervals as step. A validation after some time has the number of batches.
    """
    done, interval, before = _position(trainer)
    return before + max(0, math.ceil(done / interval) - 1)


def step_of_epoch_end(trainer: Trainer) -> int:
    """Return the step of the last validation of an epoch that is over. Without one, the step that it would have."""
    done, interval, before = _position(trainer)
    return before + max(0, math.floor(done / interval) - 1)


def at_epoch_end(trainer: Trainer) -> bool:
    """Return whether the last batch of the epoch has been trained."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return bool(progress.is_last_batch or progress.current.ready >= trainer.num_training_batches)


def _position(trainer: Trainer) -> tuple[int, float, int]:
    """Return the number of batches since a step, the number between two validations, and that step."""
    progress, interval = trainer.fit_loop.epoch_loop.batch_progress, trainer.val_check_batch
    if interval is None:  # validation after some time
        return progress.total.ready, 1, 0
    if interval == math.inf or interval >= trainer.num_training_batches:
        if trainer.check_val_every_n_epoch is not None:
            return 1, 1, trainer.current_epoch
    elif trainer.check_val_every_n_epoch is not None and trainer.num_training_batches != math.inf:
        return progress.current.ready, interval, trainer.current_epoch * int(trainer.num_training_batches // interval)
    return progress.total.ready, interval, 0
