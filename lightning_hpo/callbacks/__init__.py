"""Callbacks of a trial; the pruning and the checkpoint callback work in any Trainer."""
