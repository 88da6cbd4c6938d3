"""A study in its own process: checks, session, workers, callbacks."""
