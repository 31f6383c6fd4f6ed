"""ONNX Runtime's CPU kernels."""

from edgeres.targets.onnxruntime.target import TARGET

TARGETS = (TARGET,)
