"""Hooks, the registry of plugins, and the built-in schedulers, caches and drafters."""
