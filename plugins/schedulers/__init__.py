"""Built-in baseline schedulers."""
