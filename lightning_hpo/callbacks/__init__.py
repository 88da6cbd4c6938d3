"""Callbacks for a Trainer.

`MLflowModelCheckpoint`, `PatientEarlyStopping` and `PruningCallback` work in any Trainer. The others serve the
processes of a study.

A callback is imported at its first use, because some need MLflow or Optuna, whose imports take seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_hpo.callbacks.early_stopping import PatientEarlyStopping as PatientEarlyStopping
    from lightning_hpo.callbacks.interruption import Interruption as Interruption
    from lightning_hpo.callbacks.mlflow_metrics import MLflowMetrics as MLflowMetrics
    from lightning_hpo.callbacks.mlflow_model_checkpoint import MLflowModelCheckpoint as MLflowModelCheckpoint
    from lightning_hpo.callbacks.post_scores import PostScoresRecord as PostScoresRecord
    from lightning_hpo.callbacks.prediction_writer import PredictionWriter as PredictionWriter
    from lightning_hpo.callbacks.progress_report import ProgressReport as ProgressReport
    from lightning_hpo.callbacks.pruning import PruningCallback as PruningCallback
    from lightning_hpo.callbacks.random_state import RandomState as RandomState
    from lightning_hpo.callbacks.resume_checkpoint import ResumeCheckpoint as ResumeCheckpoint
    from lightning_hpo.callbacks.sign_of_life import SignOfLife as SignOfLife
    from lightning_hpo.callbacks.stop_request import StopRequest as StopRequest

_MODULES = {
    "Interruption": "interruption",
    "MLflowMetrics": "mlflow_metrics",
    "MLflowModelCheckpoint": "mlflow_model_checkpoint",
    "PatientEarlyStopping": "early_stopping",
    "PostScoresRecord": "post_scores",
    "PredictionWriter": "prediction_writer",
    "ProgressReport": "progress_report",
    "PruningCallback": "pruning",
    "RandomState": "random_state",
    "ResumeCheckpoint": "resume_checkpoint",
    "SignOfLife": "sign_of_life",
    "StopRequest": "stop_request",
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a callback at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the callbacks besides the names of the module."""
    return sorted({*globals(), *__all__})
