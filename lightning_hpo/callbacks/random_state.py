"""The random state in a checkpoint: Lightning leaves it out, and dropout would go on differently after a resume."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["RandomState"]


class RandomState(Callback):
    """Saves the states of Python's, NumPy's and torch's generators, and puts them back before training goes on."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The states, in types that `torch.load(weights_only=True)` reads."""
        version, keys, gauss = random.getstate()
        name, words, position, has_gauss, cached = np.random.get_state(legacy=True)
        return {
            "python": [version, list(keys), gauss],
            "numpy": [str(name), torch.from_numpy(np.asarray(words)), int(position), int(has_gauss), float(cached)],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training goes on."""
        self._loaded = state_dict

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the states of an epoch's end back, once."""
        del pl_module
        if self._loaded is None:
            return
        self._put_back()
        # Lightning begins the loader before this hook in a resumed epoch, and after it in every other one: begun again
        # here, it draws what it would have drawn.
        if trainer.fit_loop._data_fetcher is not None:
            iter(trainer.fit_loop._data_fetcher)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put the states of a place within an epoch back, once; what beginning the loader has drawn is made good."""
        del trainer, pl_module, batch, batch_idx
        self._put_back()

    def _put_back(self) -> None:
        if self._loaded is None:
            return
        version, keys, gauss = self._loaded["python"]
        random.setstate((version, tuple(keys), gauss))
        name, words, position, has_gauss, cached = self._loaded["numpy"]
        np.random.set_state((name, words.numpy(), position, has_gauss, cached))
        torch.set_rng_state(self._loaded["torch"])
        if self._loaded["cuda"]:
            torch.cuda.set_rng_state_all(self._loaded["cuda"])
        self._loaded = None
