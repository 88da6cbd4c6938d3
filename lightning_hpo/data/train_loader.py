"""Training data loader that can resume within an epoch."""

from collections.abc import Iterator
from typing import Any

from torch import Generator
from torch.utils.data import DataLoader, Dataset

from lightning_hpo.data.batching import TrainBatchSampler

__all__ = ["TrainLoader", "unchanged"]


class TrainLoader(DataLoader[Any]):
    """Data loader of batches in the sampler's order that can resume within an epoch.

    Lightning saves its `state_dict` in checkpoints and restores it with `load_state_dict`.
    """

    def __init__(
        self, dataset: Dataset[Any], sampler: TrainBatchSampler, *, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        # Without `batch_size`, `sampler` yields whole batches, and Lightning calls its `set_epoch`.
        super().__init__(
            dataset,
            batch_size=None,
            collate_fn=unchanged,
            sampler=sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            # Without it, torch would draw a seed for the workers from the global generator when they start. Since they
            # start in another epoch after a resume, dropout would then draw other numbers.
            generator=Generator(),
        )
        self._batches = sampler
        self._place = (sampler.epoch, 0)

    # A generator, so that nothing is drawn before the first batch is requested: only then is the epoch final.
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        epoch, first = self._batches.epoch, self._batches.next_batch
        for place, batch in enumerate(super().__iter__(), start=first + 1):
            # Counted here, since worker processes prefetch batches that the trainer has not received.
            self._place = (epoch, place)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and the number of its batches that were yielded."""
        return {"epoch": self._place[0], "batches": self._place[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the last batch that was yielded."""
        self._batches.start_at(state["epoch"], state["batches"])


def unchanged(batch: Any) -> Any:
    """Return a batch unchanged. The default `collate_fn` would turn its tuples into lists."""
    return batch
