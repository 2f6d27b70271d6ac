"""Backends: ways to run a model behind one interface."""
