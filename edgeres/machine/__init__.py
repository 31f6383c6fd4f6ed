"""The machine that edgeres runs on: what it is, what it can do, and whether it is stable."""

from edgeres.machine.capabilities import Capability
from edgeres.machine.doctor import Advice, DoctorReport, examine_machine
from edgeres.machine.energy import Energy, NoEnergy, idle_watts, measure_energy
from edgeres.machine.gpu import open_gpu
from edgeres.machine.jetson import JetsonBoard
from edgeres.machine.machine import (
    Machine,
    describe_machine,
    has_nvidia_gpu,
    int8_may_saturate,
    machine_kind,
    several_kinds_note,
    usable_cores,
)
from edgeres.machine.meters import Meter, NoMeter, open_meter
from edgeres.machine.monitor import StabilityMonitor, monitor_stability
from edgeres.machine.sample import CpuState, Sample
from edgeres.machine.stability import Severity, Stability, StabilityFinding, disturbing

__all__ = [
    "Advice",
    "Capability",
    "CpuState",
    "DoctorReport",
    "Energy",
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
    "describe_machine",
    "disturbing",
    "examine_machine",
    "has_nvidia_gpu",
    "idle_watts",
    "int8_may_saturate",
    "machine_kind",
    "measure_energy",
    "monitor_stability",
    "open_gpu",
    "open_meter",
    "several_kinds_note",
    "usable_cores",
]
