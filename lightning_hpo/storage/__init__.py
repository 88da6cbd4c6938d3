"""Optuna's side of a study: settings, database, attributes."""
