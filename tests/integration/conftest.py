"""Fixtures of the agents' tests: a tiny encoder, batches and a Trainer."""

from tests.agents.conftest import encoder_folder, eval_batches, loader, trainer, training_batches

__all__ = ["encoder_folder", "eval_batches", "loader", "trainer", "training_batches"]
