"""Kernels for the CPU, each beside a plain numpy twin with the same signature."""
