"""Structured outputs: answers that are JSON, follow a schema, a pattern or a grammar, or are one of a list."""
