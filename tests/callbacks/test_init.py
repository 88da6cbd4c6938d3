import importlib
import pkgutil
import subprocess
import sys

import pytest
from lightning.pytorch import Callback

import lightning_hpo.callbacks


def test_package_exports_every_callback() -> None:
    assert lightning_hpo.callbacks.__all__ == [
        "Interruption",
        "MLflowMetrics",
        "MLflowModelCheckpoint",
        "PatientEarlyStopping",
        "PostScoresRecord",
        "PredictionWriter",
        "ProgressReport",
        "PruningCallback",
        "RandomState",
        "ResumeCheckpoint",
        "SignOfLife",
        "StopRequest",
    ]
    exported = {getattr(lightning_hpo.callbacks, name) for name in lightning_hpo.callbacks.__all__}
    assert exported == _defined_callbacks()
    assert set(lightning_hpo.callbacks.__all__) <= set(dir(lightning_hpo.callbacks))
    with pytest.raises(AttributeError, match=r"^module 'lightning_hpo.callbacks' has no attribute 'Missing'$"):
        lightning_hpo.callbacks.Missing  # noqa: B018


def test_export_imports_neither_mlflow_nor_optuna_before_their_use() -> None:
    code = "import sys; from lightning_hpo.callbacks import PredictionWriter; "
    code += "print({'mlflow', 'optuna', 'optuna_integration'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def _defined_callbacks() -> set[type[Callback]]:
    names = [module.name for module in pkgutil.iter_modules(lightning_hpo.callbacks.__path__)]
    modules = [importlib.import_module(f"lightning_hpo.callbacks.{name}") for name in names]
    public = [getattr(module, name) for module in modules for name in module.__all__]
    return {found for found in public if isinstance(found, type) and issubclass(found, Callback)}
