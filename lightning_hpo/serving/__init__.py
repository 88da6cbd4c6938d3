"""Models as MLflow registers and serves them."""
