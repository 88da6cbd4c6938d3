"""Two text agents, fine-tuned with Lightning, searched with Optuna, recorded with MLflow."""

__version__ = "0.1.0"
