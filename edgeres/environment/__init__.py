"""The machine that edgeres runs on: what it is and what it can do."""

from edgeres.environment.capabilities import Capability, capabilities
from edgeres.environment.machine import (
    Machine,
    describe_machine,
    has_nvidia_gpu,
    int8_may_saturate,
)

__all__ = [
    "Capability",
    "Machine",
    "capabilities",
    "describe_machine",
    "has_nvidia_gpu",
    "int8_may_saturate",
]
