"""Random state in a checkpoint; without it, dropout and shuffling differ after a resume."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_hpo.config.lightning_private import restart_train_loader, restarts_in_validation

__all__ = ["RandomState"]


class RandomState(Callback):
    """Saves the states of the generators of Python, NumPy and torch, and restores them when training resumes."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states in types that `torch.load(weights_only=True)` reads."""
        version, keys, gauss = random.getstate()
        name, words, position, has_gauss, cached = np.random.get_state(legacy=True)
        return {
            "python": [version, list(keys), gauss],
            "numpy": [str(name), torch.from_numpy(np.asarray(words)), int(position), int(has_gauss), float(cached)],
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until training resumes."""
        self._loaded = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states after a stop in a validation, which comes first now."""
        if restarts_in_validation(trainer):
            self._restore()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the states after a resume at the end of an epoch."""
        if self._loaded is None:
            return
        self._restore()
        # Lightning starts the loader before this hook in a resumed epoch, and after it in every other epoch. The second
        # start draws from the restored state.
        restart_train_loader(trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Restore the states after a resume within an epoch; the start of the loader has drawn numbers before."""
        self._restore()

    def _restore(self) -> None:
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
