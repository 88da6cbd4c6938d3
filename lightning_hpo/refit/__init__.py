"""The best trials of a study, trained with more seeds."""
