"""Torch operators in the shape of the GPU kernels that may replace them."""
