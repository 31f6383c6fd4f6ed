"""Everything that `edgeres doctor` shows, read in a few seconds and without a heavy library."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edgeres.machine.advice import Advice, advise
from edgeres.machine.capabilities import Capability, capabilities
from edgeres.machine.commands import CommandRunner, run_command
from edgeres.machine.gpu import open_gpu
from edgeres.machine.jetson import JetsonBoard, ModuleVersion, module_version, read_board
from edgeres.machine.machine import Machine, describe_machine, has_nvidia_gpu
from edgeres.machine.monitor import monitor_stability
from edgeres.machine.stability import Stability
from edgeres.serialization import SCHEMA_VERSION

OBSERVED_S = 0.3
"""Time between the two samples of the machine's stability: thirty of the kernel's ticks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorReport:
    """What a machine is, can and should."""

    schema_version = SCHEMA_VERSION
    json_keys = (
        "schema_version", "machine", "board", "capabilities", "advice", "calm=stability",
    )  # fmt: skip

    machine: Machine
    board: JetsonBoard | None
    """None where this is no Jetson."""
    capabilities: tuple[Capability, ...]
    advice: tuple[Advice, ...]
    stability: Stability
    """Whether the machine was stable while it was examined."""


def examine_machine(
    root: Path = Path("/"),
    *,
    run: CommandRunner = run_command,
    module: ModuleVersion = module_version,
    observed_s: float = OBSERVED_S,
) -> DoctorReport:
    """Returns what a machine is, what works on it, and what to install or set.

    Args:
        root: where the machine's files are read.
        run: runs the board's own tools.
        module: returns the version of a Python module.
        observed_s: seconds between the two samples of the machine's stability.
    """
    with monitor_stability(
        root, gpu=open_gpu(root) if has_nvidia_gpu(root) else None, interval_s=None
    ) as monitor:
        time.sleep(observed_s)
    board = read_board(root, run=run, module=module)
    return DoctorReport(
        machine=describe_machine(root),
        board=board,
        capabilities=capabilities(root),
        advice=() if board is None else advise(board),
        stability=monitor.stability(),
    )
