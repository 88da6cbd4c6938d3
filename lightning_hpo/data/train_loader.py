"""A loader that knows its place in the epoch and can go on from there."""

from collections.abc import Iterator
from typing import Any

from torch import Generator
from torch.utils.data import DataLoader, Dataset

from lightning_hpo.data.batching import TrainBatchSampler

__all__ = ["TrainLoader", "as_made"]


class TrainLoader(DataLoader[Any]):
    """Whole batches of a dataset, in the sampler's order, resumable amid an epoch.

    Lightning finds `state_dict` and `load_state_dict`, keeps the state in its checkpoints and gives it back.

    Args:
        dataset: Makes a batch from a list of draws.
        sampler: The draws of each batch.
        num_workers: Processes that make batches.
        pin_memory: Whether batches are put where a GPU can fetch them.
    """

    def __init__(
        self, dataset: Dataset[Any], sampler: TrainBatchSampler, *, num_workers: int = 0, pin_memory: bool = False
    ) -> None:
        # As the sampler of a loader without a batch size it is the one whose epoch Lightning sets.
        super().__init__(
            dataset,
            batch_size=None,
            collate_fn=as_made,
            sampler=sampler,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            # Otherwise torch draws a seed for the workers, which need none, from the generator that dropout draws from:
            # when they start, that is, in another epoch after a resume.
            generator=Generator(),
        )
        self._batches = sampler
        self._place = (sampler.epoch, 0)

    # A generator on purpose: nothing is drawn before the first batch is asked for, when the epoch is known for certain.
    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        epoch, first = self._batches.epoch, self._batches.next_batch
        for place, batch in enumerate(super().__iter__(), start=first + 1):
            # Counted here, since worker processes draw ahead of what the trainer has seen.
            self._place = (epoch, place)
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches have been handed out."""
        return {"epoch": self._place[0], "batches": self._place[1]}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the last batch that was handed out."""
        self._batches.start_at(state["epoch"], state["batches"])


def as_made(batch: Any) -> Any:
    """A batch as its dataset made it: torch's own conversion would turn the tuples in it into lists."""
    return batch
