"""Models for MLflow: export, loading, bundled code."""
