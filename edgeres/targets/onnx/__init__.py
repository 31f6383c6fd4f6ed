"""Target `onnx`: the typed Q/DQ file that NVIDIA's parser reads, written on any machine."""

from edgeres.targets.onnx.target import TARGET

TARGETS = (TARGET,)
