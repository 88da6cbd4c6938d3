"""What the server of the trials' processes does once, before it forks: a process then starts in a tenth of a second.

Importing it is its use. Beside the imports it pays what libraries put off until their first call: a second a trial.
"""

# First: Python keeps one object for Optional[Union[int, float]] and Optional[Union[float, int]], the one that was asked
# for first. After a library that wants it the other way round, Trainer's `limit_train_batches: 1` would be read as 1.0,
# all batches, in the trials and nowhere else.
import lightning.pytorch

# isort: split
import mlflow.pytorch
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import optuna_integration
import sqlalchemy.orm
import torchmetrics
from optuna.storages import RDBStorage
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import lightning_hpo.agents
import lightning_hpo.data
import lightning_hpo.preflight
import lightning_hpo.registry
import lightning_hpo.serving
import lightning_hpo.trial
from lightning_hpo.allocator import keep_freed_memory

__all__ = ["lightning", "lightning_hpo", "mlflow", "optuna_integration", "torchmetrics"]

sqlalchemy.orm.configure_mappers()
get_checkpoint_conversion_mapping("bert")  # type: ignore[no-untyped-call]
_storage = RDBStorage("sqlite:///:memory:")
_storage.engine.dispose()
keep_freed_memory()
