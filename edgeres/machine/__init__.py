"""The machine that edgeres runs on: what it is, what it can do, and whether it holds still."""

from edgeres.machine.advice import Advice, advise
from edgeres.machine.capabilities import Capability, capabilities
from edgeres.machine.diagnosis import Diagnosis, diagnose
from edgeres.machine.energy import Energy, NoEnergy, idle_watts, measure_energy
from edgeres.machine.gpu import GpuProbe, GpuState, open_gpu
from edgeres.machine.guard import Guard, watch
from edgeres.machine.jetson import JetsonBoard, is_jetson, read_board
from edgeres.machine.machine import (
    Machine,
    describe_machine,
    has_nvidia_gpu,
    int8_may_saturate,
)
from edgeres.machine.meters import Meter, NoMeter, open_meter
from edgeres.machine.sample import CpuState, Sample
from edgeres.machine.stability import Finding, Severity, Stability, stability_of

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
