"""What the server of the trials' processes imports before it forks: a process then starts in a tenth of a second."""

import mlflow.pytorch
import optuna_integration
import torchmetrics
import transformers

import lightning_hpo.agents
import lightning_hpo.data
import lightning_hpo.preflight
import lightning_hpo.serving
import lightning_hpo.trial
from lightning_hpo.config import AgentCLI

__all__ = ["AgentCLI", "lightning_hpo", "mlflow", "optuna_integration", "torchmetrics", "transformers"]
