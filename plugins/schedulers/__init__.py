"""Built-in schedulers beside the core's: adaptive, and baselines."""
