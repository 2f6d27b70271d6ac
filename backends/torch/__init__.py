"""The torch backend: CUDA and CPU from the same code."""
