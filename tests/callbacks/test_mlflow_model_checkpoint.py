from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_hpo.callbacks.mlflow_model_checkpoint import MLflowModelCheckpoint
from lightning_hpo.exceptions import LightningHpoError
from tests.callbacks.conftest import Fit


def _best(folder: Path, mode: str = "max") -> MLflowModelCheckpoint:
    return MLflowModelCheckpoint(folder, "val_metric", mode, wanted=lambda _: False)


def _last(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, filename="last", enable_version_counter=False)


def _saved(folder: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(folder / "best.ckpt", weights_only=True)
    return saved


def test_the_best_is_the_best_and_not_the_last(fit: Fit, tmp_path: Path) -> None:
    best = _best(tmp_path)
    fit([0.3, 0.5, 0.4], [best])
    assert best.best_value == pytest.approx(0.5)
    assert best.best_epoch == 1
    assert best.best_metrics["val_metric"] == pytest.approx(0.5)
    assert best.best_metrics["scripted_loss"] == 0.0  # what was logged when epoch 1 was validated
    assert _saved(tmp_path)["epoch"] == 1
    assert "optimizer_states" not in _saved(tmp_path)
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["best.ckpt"]


@pytest.mark.parametrize(("mode", "epoch"), [("max", 1), ("min", 2)])
def test_the_best_is_the_best_across_a_resume(fit: Fit, tmp_path: Path, mode: str, epoch: int) -> None:
    values = [0.3, 0.5, 0.1, 0.4, 0.2]
    fit(values[:3], [_best(tmp_path, mode), _last(tmp_path)])
    weights = _saved(tmp_path)["state_dict"]
    best = _best(tmp_path, mode)
    fit(values, [best, _last(tmp_path)], ckpt_path=tmp_path / "last.ckpt")
    assert best.best_value == pytest.approx(values[epoch])
    assert best.best_epoch == epoch
    assert best.best_metrics["val_metric"] == pytest.approx(values[epoch])
    assert _saved(tmp_path)["epoch"] == epoch
    assert all(torch.equal(weights[name], now) for name, now in _saved(tmp_path)["state_dict"].items())


def test_a_better_epoch_after_a_resume_is_kept(fit: Fit, tmp_path: Path) -> None:
    fit([0.3, 0.5], [_best(tmp_path), _last(tmp_path)])
    best = _best(tmp_path)
    fit([0.3, 0.5, 0.6, 0.55], [best, _last(tmp_path)], ckpt_path=tmp_path / "last.ckpt")
    assert (best.best_epoch, _saved(tmp_path)["epoch"]) == (2, 2)
    assert [path.name for path in tmp_path.glob("best*")] == ["best.ckpt"]


def test_of_equals_the_first_is_kept(fit: Fit, tmp_path: Path) -> None:
    best = _best(tmp_path)
    fit([0.5, 0.5, 0.5], [best])
    assert (best.best_epoch, _saved(tmp_path)["epoch"]) == (0, 0)


def test_whether_a_model_is_wanted_is_asked_with_the_best_value(fit: Fit, tmp_path: Path) -> None:
    asked: list[float] = []

    def wanted(value: float) -> bool:
        asked.append(value)
        return False

    best = MLflowModelCheckpoint(tmp_path, wanted=wanted)
    fit([0.3, 0.5, 0.4], [best])
    assert asked == [pytest.approx(0.5)]
    assert (best.model_uri, best.problem) == (None, "")


def test_nothing_is_asked_before_anything_was_validated(fit: Fit, tmp_path: Path) -> None:
    best = MLflowModelCheckpoint(tmp_path)
    fit([0.3], [best], limit_val_batches=0)
    assert (best.best_value, best.best_epoch, best.model_uri) == (None, None, None)


def test_without_a_run_to_log_to_the_error_says_what_to_give(fit: Fit, tmp_path: Path) -> None:
    with pytest.raises(LightningHpoError, match="give tracking_uri and run_id, or a Trainer with an MLFlowLogger"):
        fit([0.3], [MLflowModelCheckpoint(tmp_path)])
