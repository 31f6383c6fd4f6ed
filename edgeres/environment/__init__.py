"""The machine that edgeres runs on: what it is, what it can do, and whether it holds still."""

from edgeres.environment.advice import Advice, advise
from edgeres.environment.capabilities import Capability, capabilities
from edgeres.environment.diagnosis import Diagnosis, diagnose
from edgeres.environment.energy import Energy, NoEnergy, idle_watts, measure_energy
from edgeres.environment.gpu import GpuProbe, GpuState, open_gpu
from edgeres.environment.guard import Guard, watch
from edgeres.environment.jetson import JetsonBoard, is_jetson, read_board
from edgeres.environment.machine import (
    Machine,
    describe_machine,
    has_nvidia_gpu,
    int8_may_saturate,
)
from edgeres.environment.meters import Meter, NoMeter, open_meter
from edgeres.environment.sample import CpuState, Sample
from edgeres.environment.stability import Finding, Severity, Stability, stability_of

__all__ = [
    "Advice",
    "Capability",
    "CpuState",
    "Diagnosis",
    "Energy",
    "Finding",
    "GpuProbe",
    "GpuState",
    "Guard",
    "JetsonBoard",
    "Machine",
    "Meter",
    "NoEnergy",
    "NoMeter",
    "Sample",
    "Severity",
    "Stability",
    "advise",
    "capabilities",
    "describe_machine",
    "diagnose",
    "has_nvidia_gpu",
    "idle_watts",
    "int8_may_saturate",
    "is_jetson",
    "measure_energy",
    "open_gpu",
    "open_meter",
    "read_board",
    "stability_of",
    "watch",
]
