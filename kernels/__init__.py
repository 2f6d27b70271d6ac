"""Kernels, each beside a plain twin; nothing here imports isotoken."""
