"""Explicit quantization: Q/DQ pairs where TensorRT fuses them, for every target that it builds for."""
