"""The machine that edgeres runs on: what it is, what it can do, and whether it is stable."""

from edgeres.machine.advice import Advice, advise
from edgeres.machine.capabilities import Capability, capabilities
from edgeres.machine.doctor import DoctorReport, examine_machine
from edgeres.machine.energy import Energy, NoEnergy, idle_watts, measure_energy
from edgeres.machine.gpu import GpuProbe, GpuState, open_gpu
from edgeres.machine.jetson import JetsonBoard, is_jetson, read_board
from edgeres.machine.machine import (
    Machine,
    describe_machine,
    has_nvidia_gpu,
    int8_may_saturate,
)
from edgeres.machine.meters import Meter, NoMeter, open_meter
from edgeres.machine.monitor import StabilityMonitor, monitor_stability
from edgeres.machine.sample import CpuState, Sample
from edgeres.machine.stability import Severity, Stability, StabilityFinding, stability_of

__all__ = [
    "Advice",
    "Capability",
    "CpuState",
    "DoctorReport",
    "Energy",
    "GpuProbe",
    "GpuState",
    "JetsonBoard",
    "Machine",
    "Meter",
    "NoEnergy",
    "NoMeter",
    "Sample",
    "Severity",
    "Stability",
    "StabilityFinding",
    "StabilityMonitor",
    "advise",
    "capabilities",
    "describe_machine",
    "examine_machine",
    "has_nvidia_gpu",
    "idle_watts",
    "int8_may_saturate",
    "is_jetson",
    "measure_energy",
    "monitor_stability",
    "open_gpu",
    "open_meter",
    "read_board",
    "stability_of",
]
