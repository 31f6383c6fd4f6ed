"""Everything that `edgeres doctor` shows, read in a few seconds and without a heavy library.

Of a board also what to install or set, each with its reason and the command.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeres.installation import JETSON_SETUP
from edgeres.machine.capabilities import Capability, capabilities
from edgeres.machine.commands import CommandRunner, run_command
from edgeres.machine.gpu import open_gpu
from edgeres.machine.jetson import JetsonBoard, ModuleVersion, module_version, read_board
from edgeres.machine.l4t import FIRST_JETPACK, tensorrt_problem, version_of
from edgeres.machine.machine import Machine, describe_machine, has_nvidia_gpu
from edgeres.machine.monitor import monitor_stability
from edgeres.machine.stability import MIN_HEADROOM_C, Stability
from edgeres.serialization import SCHEMA_VERSION

SMALL_MIB = 8 * 1024
"""Memory up to which a build may need swap. Source: Jetson AI Lab, RAM optimization, which adds
swap on Orin Nano's 8 GB."""

SCARCE_MIB = 1024
"""Free memory below which a build is at risk. Chosen: ResNet-50's FP32 weights are 102 MB, held in
the ONNX file, the parser and the plan, beside TensorRT's libraries and its workspace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing to do."""

    name: str
    """Of what it is about, such as `tensorrt_version`."""
    blocking: bool
    """Whether edgeres cannot use the board's GPU before; otherwise figures or comfort suffer."""
    sentence: str
    """The fact with its values, and why it matters."""
    command: str | None
    """What to type; None where no command does it."""


def advise(board: JetsonBoard) -> tuple[Advice, ...]:
    """Returns what to do on a board, what blocks first."""
    return (*_missing_software(board), *_unfit_settings(board))


def _missing_software(board: JetsonBoard) -> Iterator[Advice]:
    """Yields what keeps edgeres from using the board's GPU."""

    def advice(name: str, sentence: str, command: str | None) -> Advice:
        return Advice(name=name, blocking=True, sentence=sentence, command=command)

    module, pycuda = board.modules.get("tensorrt"), board.modules.get("pycuda")
    if board.jetpack is not None and version_of(board.jetpack) < FIRST_JETPACK:
        yield advice(
            "jetpack",
            f"JetPack {board.jetpack} has TensorRT for Python 3.8 or older, and edgeres "
            "needs 3.10. Flash JetPack 6 or newer (Orin, Thor); older boards cannot run it.",
            None,
        )
    if board.tensorrt is None and module is None:
        command = "sudo apt-get install nvidia-jetpack"
        yield advice("tensorrt", "TensorRT is not installed.", command)
    elif module is None:
        yield advice(
            "tensorrt_module",
            f"TensorRT {board.tensorrt} is installed, but this Python does not see it: "
            "its module lies among the system's packages. Make the environment with them.",
            JETSON_SETUP,
        )
    # Engines are run by the module that this Python sees, which need not be the package's version.
    version = module if module not in {None, "unknown"} else board.tensorrt
    if version and (problem := tensorrt_problem(version, board.jetpack)):
        yield advice(
            "tensorrt_version",
            f"{problem}. Use the one that JetPack brings.",
            "sudo apt-get install --reinstall nvidia-jetpack",
        )
    if board.cuda is None and pycuda is None:
        yield advice(
            "cuda",
            "The CUDA toolkit, which pycuda is built with, is not under /usr/local/cuda.",
            "sudo apt-get install nvidia-jetpack",
        )
    if pycuda is None:
        sentence = "pycuda, with which engines are run, is not installed."
        yield advice("pycuda", sentence, JETSON_SETUP)


def _unfit_settings(board: JetsonBoard) -> Iterator[Advice]:
    """Yields what lowers or spreads the board's figures, or endangers a build."""

    def advice(name: str, sentence: str, command: str | None) -> Advice:
        return Advice(name=name, blocking=False, sentence=sentence, command=command)

    mode = board.power_mode
    maximal = [mode for mode in board.power_modes if mode.is_maximal]
    if mode is not None and not mode.is_maximal and maximal:
        # A Super board has MAXN and MAXN_SUPER, of which the longer name is the higher mode.
        highest = max(maximal, key=lambda mode: len(mode.name))
        yield advice(
            "power_mode",
            f"The power mode is {mode.name}; figures in {highest.name} are the board's best. "
            "Measure in the mode that the product will run in.",
            f"sudo nvpmodel -m {highest.number}",
        )
    if board.clocks is not None and not board.clocks.are_fixed:
        yield advice(
            "clocks",
            "Clocks follow the load, so that the same engine is timed differently from "
            "run to run. Fix them at the mode's highest, until the next boot.",
            "sudo jetson_clocks",
        )
    if board.memory_mib is not None and board.memory_mib <= SMALL_MIB and board.swap_mib == 0:
        yield advice(
            "swap",
            f"The board has {board.memory_mib} MiB of memory and no swap, so that a build "
            "may be killed. Add some on a disk, not on zram.",
            "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && "
            "sudo mkswap /swapfile && sudo swapon /swapfile",
        )
    free = board.memory_available_mib
    if free is not None and free < SCARCE_MIB:
        yield advice(
            "memory",
            f"{free} MiB of memory are free, and GPU and programs share it. Close what is "
            "not needed, the desktop among it.",
            "sudo systemctl isolate multi-user.target",
        )
    if board.headroom_c is not None and board.headroom_c < MIN_HEADROOM_C:
        yield advice(
            "heat",
            f"A thermal zone is {board.headroom_c:.1f} degrees below the temperature at "
            "which clocks are lowered. Cool the board before measuring.",
            None,
        )


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
