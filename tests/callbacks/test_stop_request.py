import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_hpo.callbacks.stop_request import StopRequest, StopRequestedError
from tests.callbacks.conftest import Fit


@pytest.fixture(autouse=True)
def _handler_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class _Terminator(Callback):
    """Sends SIGTERM to its own process at the start of one batch, and counts the batches."""

    def __init__(self, stage: str, epoch: int, batch: int) -> None:
        self._at = (stage, epoch, batch)
        self.seen: list[tuple[str, int, int]] = []

    def _start(self, stage: str, trainer: Trainer, batch: int) -> None:
        if trainer.sanity_checking:
            return
        self.seen.append((stage, trainer.current_epoch, batch))
        if self.seen[-1] == self._at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        del pl_module, batch
        self._start("train", trainer, batch_idx)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        del pl_module, batch, dataloader_idx
        self._start("validation", trainer, batch_idx)


@pytest.mark.parametrize("at", [("train", 0, 0), ("train", 1, 2), ("validation", 0, 1), ("validation", 1, 3)])
def test_training_stops_after_the_batch_in_which_the_signal_came(fit: Fit, at: tuple[str, int, int]) -> None:
    stop, terminator = StopRequest(), _Terminator(*at)
    stop.listen()
    with pytest.raises(StopRequestedError):
        fit([0.25, 0.5], [stop, terminator])
    assert terminator.seen[-1] == at


def test_training_that_nobody_stops_goes_to_its_end(fit: Fit) -> None:
    stop, counter = StopRequest(), _Terminator("nowhere", 0, 0)
    stop.listen()
    assert fit([0.25, 0.5], [stop, counter]).current_epoch == 2
    assert len(counter.seen) == 2 * (4 + 4)


def test_a_signal_before_training_is_not_forgotten() -> None:
    stop = StopRequest()
    stop.listen()
    stop.check()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StopRequestedError):
        stop.check()
