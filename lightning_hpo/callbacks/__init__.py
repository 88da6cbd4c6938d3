"""Callbacks for a Trainer.

`MLflowModelCheckpoint` and `PruningCallback` work in any Trainer. The others serve the processes of a study.

A callback is imported at its first use, because some need MLflow or Optuna, whose imports take seconds.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_hpo.callbacks.mlflow_metrics import MLflowMetrics
    from lightning_hpo.callbacks.mlflow_model_checkpoint import MLflowModelCheckpoint
    from lightning_hpo.callbacks.prediction_writer import PredictionWriter
    from lightning_hpo.callbacks.progress_report import ProgressReport
    from lightning_hpo.callbacks.pruning import PruningCallback
    from lightning_hpo.callbacks.random_state import RandomState
    from lightning_hpo.callbacks.resume_checkpoint import ResumeCheckpoint
    from lightning_hpo.callbacks.stop_request import StopRequest

__all__ = [
    "MLflowMetrics",
    "MLflowModelCheckpoint",
    "PredictionWriter",
    "ProgressReport",
    "PruningCallback",
    "RandomState",
    "ResumeCheckpoint",
    "StopRequest",
]

_MODULES = {
    "MLflowMetrics": "mlflow_metrics",
    "MLflowModelCheckpoint": "mlflow_model_checkpoint",
    "PredictionWriter": "prediction_writer",
    "ProgressReport": "progress_report",
    "PruningCallback": "pruning",
    "RandomState": "random_state",
    "ResumeCheckpoint": "resume_checkpoint",
    "StopRequest": "stop_request",
}


def __getattr__(name: str) -> Any:
    """Import a callback at its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the callbacks besides the names of the module."""
    return sorted({*globals(), *__all__})
