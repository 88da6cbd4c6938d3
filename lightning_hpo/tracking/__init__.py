"""MLflow's side of a study: tracker, outbox, environment tags."""
