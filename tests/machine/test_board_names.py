"""What people, drivers and device trees call a board, and what is refused with what to pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
from verdict_parts import MACHINE

from edgeres.errors import ConfigError
from edgeres.machine import Machine
from edgeres.machine.board_names import board_called, board_of


@pytest.mark.parametrize(
    ("name", "board"),
    [
        ("orin nano 8gb", "orin-nano-8"),
        ("Jetson Orin Nano 8GB Super", "orin-nano-8-super"),
        ("jetson_xavier_nx", "xavier-nx"),
        ("Jetson Nano", "nano"),
        ("NVIDIA A10", "a10"),
        ("Tesla T4", "t4"),
        ("RTX4090", "rtx-4090"),
        ("GeForce RTX 3060", "rtx-3060"),
        ("H100 SXM", "h100-sxm"),
        ("A100 PCIe 40GB", "a100-pcie-40gb"),
        ("ORIN-NX-16", "orin-nx-16"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"),
        ("nvidia h100 80gb hbm3", "h100-sxm"),
        ("Tesla V100-SXM2-16GB", "v100-sxm"),
        ("Jetson AGX Thor Developer Kit", "thor"),
        ("orin nano 8gb devkit", "orin-nano-8"),
        ("L40S", "l40s"),
    ],
)
def test_a_board_goes_by_other_names(name: str, board: str) -> None:
    """In any order and case, with the maker's words or without."""
    assert board_called(name).name == board


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("jetson-orin-nano", "may be orin-nano-8 or orin-nano-8-super or orin-nano-4"),
        ("A100", "may be a100-pcie-40gb or a100-pcie-80gb or a100-sxm-80gb"),
        ("AGX Orin", "may be agx-orin-64 or agx-orin-32. Pass one of them."),
        ("AGX Orin 30W", "is a power mode. Pass --board 'AGX Orin' --power-mode 30W."),
        ("orin-nano-8 MAXN_SUPER", "Pass --board 'orin-nano-8' --power-mode MAXN_SUPER."),
        ("orin-nana-8", "Did you mean 'orin-nano-8'?"),
        ("nvidia", "No board 'nvidia'"),
        ("", "No board ''"),
        ("RTX 6000", "No board 'RTX 6000'"),
        ("GeForce RTX 3060 12GB", "Did you mean 'rtx-3060'?"),
        ("Jetson Nano 2GB", "Did you mean 'nano'?"),
        ("orin nano 6gb", "Did you mean 'orin-nano-8'?"),
        ("L40", "No board 'L40'. Did you mean 'l40s'?"),
    ],
)
def test_what_names_no_single_board_is_refused(name: str, said: str) -> None:
    """None of several is chosen, and a power mode has an option of its own."""
    with pytest.raises(ConfigError) as refused:
        board_called(name)
    assert said in str(refused.value)


@pytest.mark.parametrize("mode", ["MODE_MAXN_SUPER", "maxn super", "MAXN-Super"])
def test_a_power_mode_goes_by_nvpmodel_s_name(mode: str) -> None:
    """Also as its file has it."""
    assert board_called("orin-nano-8", mode).power_mode == "MAXN_SUPER"


def jetson(model: str, memory_mib: int) -> Machine:
    """Returns a Jetson by its device tree and memory."""
    return replace(MACHINE, board=model, memory_mib=memory_mib, has_nvidia_gpu=True)


NANO = "NVIDIA Jetson Orin Nano Developer Kit"


@pytest.mark.parametrize(
    ("machine", "mode", "mhz", "found"),
    [
        (jetson(NANO, 7620), "15W", 624.75, ("orin-nano-8", "15W")),
        (jetson(NANO, 7620), "MAXN_SUPER", 1020.0, ("orin-nano-8", "MAXN_SUPER")),
        # The user lowered the clock below the mode's: the mode is still that.
        (jetson(NANO, 7620), "15W", 306.0, ("orin-nano-8", "15W")),
        # Without the mode's name the clock tells it, where one mode alone has it.
        (jetson(NANO, 7620), None, 408.0, ("orin-nano-8", "7W")),
        (jetson(NANO, 7620), None, 500.0, None),
        (jetson("NVIDIA Jetson AGX Orin Developer Kit", 62_800), "MODE_30W", None, ("agx-orin-64", "30W")),
        (jetson("NVIDIA Jetson AGX Orin Developer Kit", 30_600), "MODE_30W", None, ("agx-orin-32", "30W")),
        (jetson("Jetson-AGX", 31_900), "MODE_30W_2CORE", None, ("agx-xavier", "30W_ALL")),
        (jetson("NVIDIA Jetson Nano Developer Kit", 3900), "5W", None, ("nano", "MAXN")),
        (jetson("Raspberry Pi 5", 7620), None, None, None),
        (replace(MACHINE, gpus=("Tesla T4",)), None, None, ("t4", "default")),
        (replace(MACHINE, gpus=("NVIDIA H100 80GB HBM3",) * 2), None, None, ("h100-sxm", "default")),
        (replace(MACHINE, gpus=("NVIDIA A100-SXM4-40GB",)), None, None, None),
        (replace(MACHINE, gpus=("NVIDIA L4", "Tesla T4")), None, None, None),
        (MACHINE, None, None, None),
    ],
)  # fmt: skip
def test_a_machine_is_the_board_that_its_files_name(
    machine: Machine, mode: str | None, mhz: float | None, found: tuple[str, str] | None
) -> None:
    """By model, memory, mode and clock; what is not known is None, never the nearest."""
    board = board_of(machine, mode, mhz)
    assert found == (None if board is None else (board.name, board.power_mode))
