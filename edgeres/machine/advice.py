"""What to install or set on a board, each with its reason and the command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from edgeres.machine.clocks import PowerMode
from edgeres.machine.jetson import JetsonBoard
from edgeres.machine.l4t import FIRST_JETPACK, tensorrt_problem, version_of
from edgeres.machine.stability import NEAR_C

SETUP = "scripts/jetson_setup.sh"

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

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return asdict(self)


def advise(board: JetsonBoard) -> tuple[Advice, ...]:
    """Returns what to do on a board, what blocks first."""
    found = [advice for rule in _RULES for advice in rule(board)]
    return tuple(sorted(found, key=lambda advice: not advice.blocking))


def _jetpack(board: JetsonBoard) -> Iterator[Advice]:
    if board.jetpack is not None and version_of(board.jetpack) < FIRST_JETPACK:
        yield Advice(
            name="jetpack",
            blocking=True,
            sentence=f"JetPack {board.jetpack} has TensorRT for Python 3.8 or older, and edgeres "
            "needs 3.10. Flash JetPack 6 or newer (Orin, Thor); older boards cannot run it.",
            command=None,
        )


def _tensorrt(board: JetsonBoard) -> Iterator[Advice]:
    if board.tensorrt is None and board.modules.get("tensorrt") is None:
        yield Advice(
            name="tensorrt",
            blocking=True,
            sentence="TensorRT is not installed.",
            command="sudo apt-get install nvidia-jetpack",
        )
    elif board.modules.get("tensorrt") is None:
        yield Advice(
            name="tensorrt_module",
            blocking=True,
            sentence=f"TensorRT {board.tensorrt} is installed, but this Python does not see it: "
            "its module lies among the system's packages. Make the environment with them.",
            command=SETUP,
        )


def _tensorrt_version(board: JetsonBoard) -> Iterator[Advice]:
    module = board.modules.get("tensorrt")
    version = module if module not in {None, "unknown"} else board.tensorrt
    problem = tensorrt_problem(version, board.jetpack) if version else None
    if problem:
        yield Advice(
            name="tensorrt_version",
            blocking=True,
            sentence=f"{problem}. Use the one that JetPack brings.",
            command="sudo apt-get install --reinstall nvidia-jetpack",
        )


def _pycuda(board: JetsonBoard) -> Iterator[Advice]:
    if board.modules.get("pycuda") is None:
        yield Advice(
            name="pycuda",
            blocking=True,
            sentence="pycuda, with which engines are run, is not installed.",
            command=SETUP,
        )


def _cuda(board: JetsonBoard) -> Iterator[Advice]:
    if board.cuda is None and board.modules.get("pycuda") is None:
        yield Advice(
            name="cuda",
            blocking=True,
            sentence="The CUDA toolkit, which pycuda is built with, is not under /usr/local/cuda.",
            command="sudo apt-get install nvidia-jetpack",
        )


def _power(board: JetsonBoard) -> Iterator[Advice]:
    mode, highest = board.power_mode, _highest(board.power_modes)
    if mode is None or mode.is_maximal or highest is None:
        return
    yield Advice(
        name="power_mode",
        blocking=False,
        sentence=f"The power mode is {mode.name}; figures in {highest.name} are the board's best. "
        "Measure in the mode that the product will run in.",
        command=f"sudo nvpmodel -m {highest.number}",
    )


def _highest(modes: tuple[PowerMode, ...]) -> PowerMode | None:
    """Returns the mode without a limit; of MAXN and MAXN_SUPER the latter, which is higher."""
    maximal = [mode for mode in modes if mode.is_maximal]
    return max(maximal, key=lambda mode: len(mode.name), default=None)


def _clocks(board: JetsonBoard) -> Iterator[Advice]:
    if board.clocks is not None and not board.clocks.are_fixed:
        yield Advice(
            name="clocks",
            blocking=False,
            sentence="Clocks follow the load, so that the same engine is timed differently from "
            "run to run. Fix them at the mode's highest, until the next boot.",
            command="sudo jetson_clocks",
        )


def _memory(board: JetsonBoard) -> Iterator[Advice]:
    if board.memory_mib is not None and board.memory_mib <= SMALL_MIB and board.swap_mib == 0:
        yield Advice(
            name="swap",
            blocking=False,
            sentence=f"The board has {board.memory_mib} MiB of memory and no swap, so that a build "
            "may be killed. Add some on a disk, not on zram.",
            command="sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && "
            "sudo mkswap /swapfile && sudo swapon /swapfile",
        )
    free = board.memory_available_mib
    if free is not None and free < SCARCE_MIB:
        yield Advice(
            name="memory",
            blocking=False,
            sentence=f"{free} MiB of memory are free, and GPU and programs share it. Close what is "
            "not needed, the desktop among it.",
            command="sudo systemctl isolate multi-user.target",
        )


def _heat(board: JetsonBoard) -> Iterator[Advice]:
    if board.headroom_c is not None and board.headroom_c < NEAR_C:
        yield Advice(
            name="heat",
            blocking=False,
            sentence=f"A thermal zone is {board.headroom_c:.1f} degrees below the temperature at "
            "which clocks are lowered. Cool the board before measuring.",
            command=None,
        )


_RULES = (
    _jetpack,
    _tensorrt,
    _tensorrt_version,
    _cuda,
    _pycuda,
    _power,
    _clocks,
    _memory,
    _heat,
)
