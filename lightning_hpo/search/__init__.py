"""Search space, samplers and pruners of a study, and the start from another study."""
