"""Hyperparameter search: search space, samplers, pruners, warm start."""
