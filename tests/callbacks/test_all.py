import importlib
import io
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from lightning.pytorch import Callback, Trainer

import lightning_hpo.callbacks
from lightning_hpo.callbacks import (
    Interruption,
    MLflowMetrics,
    MLflowModelCheckpoint,
    PatientEarlyStopping,
    PostScoresRecord,
    PredictionWriter,
    ProgressReport,
    PruningCallback,
    RandomState,
    ResumeCheckpoint,
    SignOfLife,
    StopRequest,
)
from lightning_hpo.tracking.outbox import Outbox
from tests.foreign import ForeignData, ForeignModule

Make = Callable[[], dict[type[Callback], Callback]]


@pytest.fixture
def make(study: optuna.Study, outbox: Outbox, tmp_path: Path) -> Make:
    """Makes one of each callback."""
    trial = study.ask()

    def build() -> dict[type[Callback], Callback]:
        stop = StopRequest()
        made: list[Callback] = [
            RandomState(),
            Interruption(),
            stop,
            MLflowMetrics(outbox, "val_metric"),
            ProgressReport(lambda *progress: None, "val_metric"),
            SignOfLife(tmp_path / "sign_of_life", lambda: None),
            PruningCallback(trial, "val_metric"),
            PatientEarlyStopping(),
            PostScoresRecord(tmp_path / "post_scores.npz"),
            PredictionWriter(io.StringIO()),
            MLflowModelCheckpoint(tmp_path / "best", wanted=lambda _: False),
            ResumeCheckpoint(tmp_path, stop),
        ]
        return {type(callback): callback for callback in made}

    return build


def _classes() -> set[type[Callback]]:
    names = [
        f"lightning_hpo.callbacks.{module.name}" for module in pkgutil.iter_modules(lightning_hpo.callbacks.__path__)
    ]
    public = [getattr(module, name) for module in map(importlib.import_module, names) for name in module.__all__]
    return {found for found in public if isinstance(found, type) and issubclass(found, Callback)}


def test_contract_covers_every_callback(make: Make) -> None:
    assert set(make()) == _classes()


def _fit(trainer: Trainer, ckpt_path: Path | None = None) -> None:
    trainer.fit(ForeignModule(), ForeignData(), ckpt_path=ckpt_path, weights_only=True)


@pytest.mark.parametrize("kind", sorted(_classes(), key=str))
def test_callback_runs_alone_through_a_fit(
    kind: type[Callback], make: Make, quiet_trainer: Callable[..., Trainer]
) -> None:
    trainer = quiet_trainer(max_epochs=2, callbacks=[make()[kind]])
    _fit(trainer)
    assert trainer.current_epoch == 2


def test_all_callbacks_run_together_through_a_fit_and_a_resume(
    make: Make, quiet_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    _fit(quiet_trainer(max_epochs=2, callbacks=[*make().values()]))
    trainer = quiet_trainer(max_epochs=3, callbacks=[*make().values()])
    _fit(trainer, tmp_path / "last.ckpt")
    assert trainer.current_epoch == 3


@pytest.mark.parametrize("kind", sorted(_classes(), key=str))
def test_state_is_restored_from_a_checkpoint(
    kind: type[Callback], make: Make, quiet_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trained = make()[kind]
    _fit(quiet_trainer(max_epochs=2, callbacks=[trained]))
    state: dict[str, Any] = trained.state_dict()
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = make()[kind]
    fresh.load_state_dict(loaded)
    assert repr(loaded) == repr(state)
    if kind is not RandomState:  # its state is that of the process; see test_random_state.py
        again = fresh.state_dict() | {key: state[key] for key in state if key == "current_score"}  # not restored
        assert repr(again) == repr(state)
