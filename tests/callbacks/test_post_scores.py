from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from lightning_hpo.agents.post_scores import PostScores, read_post_scores, text_keys
from lightning_hpo.callbacks.post_scores import PostScoresRecord

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")


class _Module(LightningModule):
    """Module whose score by post is the number of its epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss: Tensor = self.layer(batch).sum()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-6)


class _Scored(_Module):
    def post_scores(self, split: str) -> PostScores:
        assert split == "val"
        return PostScores.of_means(text_keys(["a", "b"]), [float(self.current_epoch), 0.0])


class _Stop(Callback):
    """Stops as an interruption does: without the end of the training."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.save_checkpoint(Path(str(trainer.default_root_dir)) / "last.ckpt")
        raise KeyboardInterrupt


def _fit(folder: Path, module: LightningModule, *callbacks: Callback, checkpoint: Path | None = None) -> None:
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        default_root_dir=folder,
        enable_checkpointing=False,
        callbacks=[PostScoresRecord(folder / "scores.npz"), *callbacks],
        **quiet,
    )
    loader: Any = torch.utils.data.DataLoader([torch.ones(1), torch.ones(1)])  # type: ignore[arg-type]
    trainer.fit(module, loader, loader, ckpt_path=checkpoint, weights_only=True)


def test_scores_of_each_validation_are_written_without_the_sanity_check(tmp_path: Path) -> None:
    _fit(tmp_path, _Scored())
    found = read_post_scores(tmp_path / "scores.npz")
    assert list(found) == ["0", "1", "2"]
    assert [each.score for each in found.values()] == [0.0, 0.5, 1.0]


def test_resumed_training_has_the_scores_of_before(tmp_path: Path) -> None:
    _fit(tmp_path, _Scored())
    expected = read_post_scores(tmp_path / "scores.npz")
    (tmp_path / "scores.npz").unlink()
    with pytest.raises(SystemExit):
        _fit(tmp_path, _Scored(), _Stop())
    assert not (tmp_path / "scores.npz").exists()
    _fit(tmp_path, _Scored(), checkpoint=tmp_path / "last.ckpt")
    found = read_post_scores(tmp_path / "scores.npz")
    assert list(found) == list(expected)
    for name, each in found.items():
        np.testing.assert_array_equal(each.sums, expected[name].sums)


def test_module_without_scores_by_post_leaves_no_file(tmp_path: Path) -> None:
    _fit(tmp_path, _Module())
    assert not (tmp_path / "scores.npz").exists()
