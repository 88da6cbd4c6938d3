"""Optuna's side: settings, connections, studies, summaries, and the import of studies."""
