import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, IterableDataset

from lightning_hpo.callbacks.progress_report import ProgressReport
from tests.callbacks.conftest import Fit
from tests.foreign import ForeignData, ForeignModule

Ends = tuple[Connection, Connection]


class _Endless(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return ((torch.zeros(2), torch.zeros(1)) for _ in range(8))


@pytest.fixture
def pipe() -> Iterator[Ends]:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    with receiving, sending:
        yield receiving, sending


def _messages(receiving: Connection) -> list[tuple[int, int, float, float | None]]:
    messages = []
    while receiving.poll():
        messages.append(receiving.recv())
    return messages


def test_each_batch_and_each_epoch_is_told(fit: Fit, pipe: Ends) -> None:
    fit([0.25, 0.5], [ProgressReport(pipe[1], "val_metric")], num_sanity_val_steps=0)
    assert _messages(pipe[0]) == [
        *((0, 2, share, None) for share in (0.0, 0.25, 0.5, 0.75)),
        (0, 2, 1.0, 0.25),
        *((1, 2, share, 0.25) for share in (0.0, 0.25, 0.5, 0.75)),
        (1, 2, 1.0, 0.5),
    ]


@pytest.mark.parametrize(("batches", "told"), [(100, 101), (150, 76), (201, 68)])
def test_at_most_a_hundred_batches_of_an_epoch_are_told(
    quiet_trainer: Callable[..., Trainer], pipe: Ends, batches: int, told: int
) -> None:
    trainer = quiet_trainer(max_epochs=1, callbacks=[ProgressReport(pipe[1], "val_metric")])
    trainer.fit(ForeignModule(), ForeignData(rows=batches, batch_size=1))
    assert len(_messages(pipe[0])) == told


def test_of_a_loader_without_a_length_the_epochs_are_told(quiet_trainer: Callable[..., Trainer], pipe: Ends) -> None:
    trainer = quiet_trainer(max_epochs=2, callbacks=[ProgressReport(pipe[1], "train_loss")])
    trainer.fit(ForeignModule(), DataLoader(_Endless(), batch_size=2), ForeignData().val_dataloader())
    assert [message[:3] for message in _messages(pipe[0])] == [(0, 2, 1.0), (1, 2, 1.0)]
