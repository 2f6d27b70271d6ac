"""The ONNX graph of a decoder, built from its DecoderSpec: what ONNX Runtime and TensorRT both run."""
