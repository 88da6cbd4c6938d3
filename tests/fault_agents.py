"""An agent and a data module with injected faults, for configs to name."""

from functools import partial
from typing import Any, Literal
from unittest import mock

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassF1Score

from lightning_hpo.agents import CriteriaAgent
from lightning_hpo.data import CriteriaDataModule, pair_data_module
from lightning_hpo.data.posts import Posts
from lightning_hpo.data.splits import Split, split_posts
from tests.fault_callbacks import rehearses

TWIN = "twin"
"""Id of a post with the text of another post."""


class _NanF1Score(MulticlassF1Score):
    def compute(self) -> Tensor:
        return super().compute() * torch.nan


class FaultyAgent(CriteriaAgent):
    """Agent that passes the preflight and fails in trials."""

    def __init__(self, name: str, fault: Literal["none", "constant", "loss", "metric"] = "none", **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.fault = fault

    @property
    def _in_trial(self) -> bool:
        return not rehearses(self.trainer)

    def logits(self, batch: dict[str, Any]) -> Tensor:
        logits = super().logits(batch)
        return logits * 0 + torch.tensor([2.0, -2.0]) if self.fault == "constant" else logits

    def window_losses(self, logits: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        losses, counted = super().window_losses(logits, batch)
        fails = self.fault == "loss" and self.training and self._in_trial and self.current_epoch == 1
        return losses * (torch.nan if fails else 1.0), counted

    def on_validation_epoch_start(self) -> None:
        if self.fault == "metric" and self._in_trial:
            self.val_scores["metric"] = _NanF1Score(num_classes=2, average="macro")
        super().on_validation_epoch_start()


class LeakyData(CriteriaDataModule):
    """Data module with a post, or its text under another id, in two splits."""

    def __init__(self, *, leak: Literal["post", "text"], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.leak = leak

    def _read(self) -> Split:
        with mock.patch.object(pair_data_module, "split_posts", partial(_leaky, self.leak)):
            return super()._read()


def _leaky(leak: str, posts: Posts, **how: Any) -> Split:
    split = split_posts(posts, **how)
    if leak == "post":
        return Split(split.train, split.val, (*split.test, split.train[0]))
    posts_of = {name: [post for post in getattr(split, name) if post != TWIN] for name in ("train", "val", "test")}
    posts_of["val" if TWIN in split.train else "train"].append(TWIN)
    return Split(**{name: tuple(ids) for name, ids in posts_of.items()})
