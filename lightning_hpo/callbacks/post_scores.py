"""Callback that keeps the scores of each validation by post."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_hpo.agents.post_scores import PostScores, write_post_scores
from lightning_hpo.callbacks.validation_steps import step_of_validation

__all__ = ["PostScoresRecord"]


class PostScoresRecord(Callback):
    """Keeps the scores of each validation by post, and writes them to a file at the end of training.

    `refit` computes from them how much a score depends on the posts. A module without a method `post_scores` (see
    `EvaluatedModule`) leaves no file.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scores: dict[str, PostScores] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the scores for a checkpoint, as plain values and tensors."""
        return {
            step: {"keys": torch.from_numpy(each.keys), "sums": torch.from_numpy(each.sums), "formula": each.formula}
            for step, each in self._scores.items()
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the scores of a checkpoint."""
        self._scores = {
            step: PostScores(each["keys"].numpy(), each["sums"].numpy(), each["formula"])
            for step, each in state_dict.items()
        }

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the scores of a validation."""
        found: Callable[[str], PostScores | None] | None = getattr(pl_module, "post_scores", None)
        scores = None if found is None or trainer.sanity_checking else found("val")
        if scores is not None:
            self._scores[str(step_of_validation(trainer))] = scores

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        if self._scores:
            write_post_scores(self._path, self._scores)
