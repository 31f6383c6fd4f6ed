"""TensorRT, and TensorRT for RTX, which is the same code on another module."""

from edgeres.targets.tensorrt.target import TARGETS as TARGETS
