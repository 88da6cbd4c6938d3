import io
import json
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from lightning_hpo.callbacks.prediction_writer import PredictionWriter
from tests.foreign import ForeignModule


class _Predicting(ForeignModule):
    def predict_step(self, batch: torch.Tensor, batch_idx: int) -> list[dict[str, Any]]:
        del batch_idx
        return [{"post_id": f"post-{int(row)}", "met": bool(row > 1), "probability": 0.5} for row in batch]


def test_each_prediction_is_one_line(quiet_trainer: Callable[..., Trainer]) -> None:
    stream = io.StringIO()
    trainer = quiet_trainer(callbacks=[PredictionWriter(stream)])
    loader: Any = DataLoader(torch.arange(5), batch_size=2)  # type: ignore[arg-type]
    trainer.predict(_Predicting(), loader)
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"post_id": f"post-{row}", "met": row > 1, "probability": 0.5} for row in range(5)
    ]
