"""Predictions as JSON lines."""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

__all__ = ["PredictionWriter", "whole_output"]


@contextmanager
def whole_output(stream: TextIO) -> Iterator[TextIO]:
    """Write all of the output to a file, or nothing if the block raises: half a file looks like the whole one.

    Args:
        stream: Where the output goes. Anything but a file, such as a pipe, gets each line at once.

    Yields:
        The stream to write to.
    """
    if not _is_file(stream):
        yield stream
        return
    with tempfile.TemporaryFile("w+", encoding="utf-8") as held:
        yield held
        held.seek(0)
        before = os.fstat(stream.fileno()).st_size
        try:
            shutil.copyfileobj(held, stream)
            stream.flush()
        except BaseException:
            os.ftruncate(stream.fileno(), before)
            raise


def _is_file(stream: TextIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:  # a stream without a descriptor
        return False


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
