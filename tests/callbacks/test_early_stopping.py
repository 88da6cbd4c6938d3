from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule

from lightning_hpo.callbacks import PatientEarlyStopping


@pytest.mark.parametrize(
    ("warmup", "schedule", "stopped_after"),
    [(0.0, 0.3, 4), (None, 0.3, 7), (0.5, 0.0, 9), (None, None, 4), (None, 0.0, 4)],
)
@pytest.mark.parametrize("hook", ["on_validation_end", "on_train_epoch_end"])
def test_patience_is_counted_after_the_warm_up(
    warmup: float | None, schedule: float | None, stopped_after: int, hook: str
) -> None:
    """The metric never rises after the first epoch that counts, and the patience is three epochs."""
    callback = PatientEarlyStopping(warmup=warmup, patience=3, check_on_train_epoch_end=hook == "on_train_epoch_end")
    module: Any = LightningModule()
    if schedule is not None:
        module.schedule = SimpleNamespace(warmup=schedule)
    trainer: Any = _Trainer()
    callback.setup(trainer, module, "fit")
    for epoch in range(10):
        trainer.current_epoch = epoch
        getattr(callback, hook)(trainer, module)
        if trainer.should_stop:
            break
    assert trainer.current_epoch + 1 == stopped_after


class _Trainer(SimpleNamespace):
    """What `EarlyStopping` reads of a Trainer."""

    def __init__(self) -> None:
        metrics = {"val_metric": torch.tensor(0.5)}
        strategy = SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision)
        state = SimpleNamespace(fn="fit")
        super().__init__(max_epochs=10, callback_metrics=metrics, strategy=strategy, state=state, should_stop=False)
        self.fast_dev_run = self.sanity_checking = False
        self.world_size = 1
