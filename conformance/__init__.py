"""The conformance suite: what a backend must do, numbered and tested."""
