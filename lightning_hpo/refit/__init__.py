"""The best trials of a study, trained again with other seeds."""
