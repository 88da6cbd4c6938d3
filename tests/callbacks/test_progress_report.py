from collections.abc import Callable, Iterator

import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, IterableDataset

from lightning_hpo.callbacks.progress_report import ProgressReport
from tests.callbacks.conftest import Fit
from tests.foreign import ForeignData, ForeignModule

Reports = list[tuple[int, int | None, float, float | None]]


class _Endless(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return ((torch.zeros(2), torch.zeros(1)) for _ in range(8))


@pytest.fixture
def reports() -> Reports:
    return []


def _callback(reports: Reports, monitor: str = "val_metric") -> ProgressReport:
    return ProgressReport(lambda *progress: reports.append(progress), monitor)


def test_each_batch_and_each_epoch_is_reported(fit: Fit, reports: Reports) -> None:
    fit([0.25, 0.5], [_callback(reports)], num_sanity_val_steps=0)
    assert reports == [
        *((0, 2, share, None) for share in (0.0, 0.25, 0.5, 0.75)),
        (0, 2, 1.0, 0.25),
        *((1, 2, share, 0.25) for share in (0.0, 0.25, 0.5, 0.75)),
        (1, 2, 1.0, 0.5),
    ]


@pytest.mark.parametrize(("batches", "count"), [(100, 101), (150, 76), (201, 68)])
def test_at_most_a_hundred_batches_of_an_epoch_are_reported(
    quiet_trainer: Callable[..., Trainer], reports: Reports, batches: int, count: int
) -> None:
    trainer = quiet_trainer(max_epochs=1, callbacks=[_callback(reports)])
    trainer.fit(ForeignModule(), ForeignData(rows=batches, batch_size=1))
    assert len(reports) == count


def test_only_epochs_are_reported_for_a_loader_without_a_length(
    quiet_trainer: Callable[..., Trainer], reports: Reports
) -> None:
    trainer = quiet_trainer(max_epochs=2, callbacks=[_callback(reports, "train_loss")])
    trainer.fit(ForeignModule(), DataLoader(_Endless(), batch_size=2), ForeignData().val_dataloader())
    assert [report[:3] for report in reports] == [(0, 2, 1.0), (1, 2, 1.0)]
