"""ONNX Runtime's CPU kernels."""
