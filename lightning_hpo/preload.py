"""Imports of the fork server: done once, so that a trial process starts in a tenth of a second.

Importing this module is its only use. It also makes the first calls that libraries defer, which cost a second a trial.
"""

# ruff: noqa: E402 - the garbage collector is off during the imports, which it would traverse for nothing
import gc
import signal

gc.disable()
# A signal to the whole process group must not end this server, because its exit kills the trials. Blocked, and not
# ignored: a trial process keeps what it receives until it can handle it.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})

# isort: split
# First: Python caches one object for Optional[Union[int, float]] and Optional[Union[float, int]], the first one.
# After a library that uses the second, `limit_train_batches: 1` of the Trainer would be parsed as 1.0 (all batches), in
# trial processes only.
import lightning.pytorch

# isort: split
import contextlib
import importlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

import mlflow.pytorch
import mlflow.store.model_registry.sqlalchemy_store
import mlflow.store.tracking.sqlalchemy_store
import optuna_integration
import scipy.optimize
import sklearn.feature_extraction.text
import sklearn.linear_model
import sqlalchemy.orm
import torch.export
import torchmetrics
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches
from torch import nn
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

import lightning_hpo.agents
import lightning_hpo.data
import lightning_hpo.registry.register
import lightning_hpo.serving.flavor
import lightning_hpo.study.preflight
import lightning_hpo.trial.run
from lightning_hpo.config.agent_cli import AgentCLI
from lightning_hpo.hardware.memory import keep_freed_memory

__all__ = ["lightning", "lightning_hpo", "mlflow", "optuna_integration", "scipy", "sklearn", "torchmetrics"]

_FAMILIES = ("bert", "roberta", "deberta_v2", "electra", "distilbert", "modernbert", "xlm_roberta", "albert")
_CONFIG = {
    "model": {"class_path": "lightning_hpo.agents.EvidenceAgent", "init_args": {"name": ""}},
    "data": {"class_path": "lightning_hpo.data.EvidenceDataModule", "init_args": {"posts": ""}},
}


@contextlib.contextmanager
def _without_gpus() -> Iterator[None]:
    """Let torch see no GPU: if something read one here, the trial processes could not use it."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        yield
    finally:
        del os.environ["CUDA_VISIBLE_DEVICES"]
        if before is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def _export_a_model() -> None:
    """Export a model, save it and load it, so that torch and MLflow import and list what they need for that."""
    warn_dependency_requirement_mismatches([f"torch=={torch.__version__}"])  # lists the modules of all packages
    layer = nn.Linear(2, 2, device="meta").to_empty(device="cpu").eval()  # without a draw of random numbers
    exported = torch.export.export(layer, (torch.zeros(2, 2),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    torch.export.load(file).module()


sqlalchemy.orm.configure_mappers()
get_checkpoint_conversion_mapping("bert")  # type: ignore[no-untyped-call]
tokenizer_class_from_name("BertTokenizer")
for _family in _FAMILIES:  # the most common encoders; transformers imports one at its first use
    importlib.import_module(f"transformers.models.{_family}.modeling_{_family}")
AgentCLI(_CONFIG, instantiate=False)
# What fails here fails in the preflight again, which tells the user; without this server there is no preflight.
with contextlib.suppress(Exception), warnings.catch_warnings(action="ignore"), _without_gpus():
    _export_a_model()
keep_freed_memory()
logging.basicConfig(
    level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", force=True
)  # to a trial's log.txt
gc.enable()
gc.collect()
gc.freeze()  # so that no child collects garbage in the imported modules, which would copy their memory
