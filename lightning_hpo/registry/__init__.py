"""Registration of a study's models in MLflow."""
