"""One trial in its own process: task, messages, outcome."""
