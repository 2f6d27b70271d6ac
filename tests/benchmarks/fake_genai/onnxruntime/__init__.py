"""Stands in for the peer's onnxruntime, of which only the version is asked."""

__version__ = "0.0"
