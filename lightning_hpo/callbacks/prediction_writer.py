"""Predictions as JSON lines."""

import json
from collections.abc import Sequence
from typing import Any, TextIO

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

__all__ = ["PredictionWriter"]


class PredictionWriter(BasePredictionWriter):
    """Writes each prediction to a stream, as one line of JSON. Predictions hold ids and positions, but no post text.

    `predict_step` of the module returns a list of dictionaries.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(write_interval="batch")
        self._stream = stream

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the predictions of a batch."""
        for entry in prediction:
            self._stream.write(json.dumps(entry) + "\n")
        self._stream.flush()
