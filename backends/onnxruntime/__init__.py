"""The onnxruntime backend: a compiled decoder graph on the CPU or a CUDA device, one row of K/V memory per request."""
