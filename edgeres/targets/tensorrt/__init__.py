"""TensorRT, and TensorRT for RTX, which is the same code on another module."""
