"""What this machine is, as data."""

from edgeres.environment.machine import Machine, describe_machine, has_nvidia_gpu

__all__ = ["Machine", "describe_machine", "has_nvidia_gpu"]
