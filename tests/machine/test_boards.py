"""The parsers on the words of eight real boards, with what a reader sees in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from boards import (
    AGX_ORIN,
    AGX_THOR,
    AGX_XAVIER,
    BOARDS,
    NANO,
    NOT_ROOT,
    ORIN_NANO,
    ORIN_NX,
    TX2,
    XAVIER_NX,
    Board,
)
from machine_files import lay_out

from edgeres.machine.clocks import (
    Clock,
    Clocks,
    PowerMode,
    parse_jetson_clocks,
    parse_power_mode,
    parse_power_modes,
    read_clocks,
)
from edgeres.machine.l4t import (
    cuda_version,
    jetpack_version,
    l4t_version,
    packages_of,
    tensorrt_problem,
    version_of,
)
from edgeres.machine.rails import all_rails, find_rails
from edgeres.machine.tegrastats import CoreLoad, parse_tegrastats

RELEASE, DPKG = "etc/nv_tegra_release", "var/lib/dpkg/status"

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def jetpack_package(version: str) -> str:
    """Returns dpkg's paragraph on JetPack."""
    return f"Package: nvidia-jetpack\nStatus: install ok installed\nVersion: {version}\n"


@each_board
def test_release_and_jetpack(board: Board, tmp_path: Path) -> None:
    """Jetson Linux from its file, and JetPack by it; the package's own version comes first."""
    root = lay_out(tmp_path, {RELEASE: board.release})
    assert (l4t_version(root), jetpack_version(root)) == (board.l4t, board.jetpack)
    assert jetpack_version(lay_out(root, {DPKG: jetpack_package("9.9.1+b7")})) == "9.9.1"


@each_board
def test_the_power_mode(board: Board) -> None:
    """Name and number, whatever nvpmodel warns of; the name is one of the board's."""
    mode = parse_power_mode(board.nvpmodel)
    assert mode is not None
    assert (mode.name, mode.number) == board.mode
    assert mode in parse_power_modes(board.modes)
    assert mode.is_maximal == (mode.name == "MAXN")


@each_board
def test_the_rails(board: Board, tmp_path: Path) -> None:
    """Those that add up to the module, none twice, and their power by hand."""
    rails = find_rails(lay_out(tmp_path, board.files))
    assert tuple(rail.name for rail in rails) == board.rails
    assert sum(rail.watts() for rail in rails) == pytest.approx(board.watts, rel=1e-12)


@each_board
def test_the_memory_in_tegrastats(board: Board) -> None:
    """What every board's line has, and only a tegrastats line has."""
    stats = parse_tegrastats(board.tegrastats)
    assert stats is not None
    assert stats.ram_used_mb is not None
    assert stats.ram_total_mb is not None
    assert 0 < stats.ram_used_mb < stats.ram_total_mb
    assert stats.cpu
    assert stats.gpu_mhz or stats.gpu_percent is not None
    assert max(stats.temperatures_c.values()) <= 100
    assert stats.power_mw


def test_a_line_of_nano() -> None:
    """L4T 32: load and clock of each processor, rails in milliwatts without a unit."""
    stats = parse_tegrastats(NANO.tegrastats)
    assert stats is not None
    assert (stats.ram_used_mb, stats.ram_total_mb) == (534, 3964)
    assert (stats.swap_used_mb, stats.swap_total_mb) == (5, 1982)
    assert stats.cpu == (
        CoreLoad(percent=16, mhz=204),
        CoreLoad(percent=9, mhz=204),
        CoreLoad(percent=0, mhz=204),
        CoreLoad(percent=0, mhz=204),
    )
    assert (stats.emc_percent, stats.emc_mhz) == (0, 204)
    assert (stats.gpu_percent, stats.gpu_mhz) == (0, (76,))
    assert stats.temperatures_c == {
        "PLL": 34.0,
        "CPU": 36.5,
        "PMIC": 100.0,
        "GPU": 36.0,
        "AO": 39.5,
        "thermal": 36.25,
    }
    assert stats.power_mw == {"POM_5V_IN": 1022, "POM_5V_GPU": 0, "POM_5V_CPU": 204}


def test_processors_that_are_switched_off() -> None:
    """TX2's Denver cores, in their places."""
    stats = parse_tegrastats(TX2.tegrastats)
    assert stats is not None
    assert [core and core.percent for core in stats.cpu] == [1, None, None, 1, 0, 2]
    assert stats.power_mw["VDD_4V0_WIFI"] == 0
    assert stats.power_mw["VDD_IN"] == 3056


def test_the_xaviers() -> None:
    """A GPU at work on NX; rails named like units on AGX, and MTS that is no rail."""
    busy, calm = parse_tegrastats(XAVIER_NX.tegrastats), parse_tegrastats(AGX_XAVIER.tegrastats)
    assert busy is not None
    assert calm is not None
    assert (busy.gpu_percent, busy.gpu_mhz, busy.emc_percent) == (62, (306,), 10)
    assert calm.power_mw == {
        "GPU": 0,
        "CPU": 311,
        "SOC": 932,
        "CV": 0,
        "VDDRQ": 621,
        "SYS5V": 1482,
    }


def test_the_smaller_orins() -> None:
    """Milliwatts with their unit; a GPU that reports its load without a clock."""
    nano, nx = parse_tegrastats(ORIN_NANO.tegrastats), parse_tegrastats(ORIN_NX.tegrastats)
    assert nano is not None
    assert nx is not None
    assert (nano.gpu_percent, nano.gpu_mhz, nano.emc_percent, nano.emc_mhz) == (45, (), None, None)
    assert nx.power_mw == {"VDD_IN": 5299, "VDD_CPU_GPU_CV": 773, "VDD_SOC": 1424}
    assert nx.temperatures_c["tj"] == 48.875


def test_agx_orin_on_l4t_39() -> None:
    """A time in front, a clock for each cluster of the GPU, two values of a temperature."""
    stats = parse_tegrastats(AGX_ORIN.tegrastats)
    assert stats is not None
    assert (stats.gpu_percent, stats.gpu_mhz) == (0, (1300, 1300))
    assert (stats.swap_used_mb, stats.emc_percent, stats.emc_mhz) == (None, 3, 3199)
    assert stats.temperatures_c["cpu"] == 52.968
    assert stats.power_mw["VDDQ_VDD2_1V8AO"] == 1091


def test_agx_thor() -> None:
    """Clocks of three clusters without a load, three values of each rail: the first is now."""
    stats = parse_tegrastats(AGX_THOR.tegrastats)
    assert stats is not None
    assert (stats.gpu_percent, stats.gpu_mhz) == (None, (1574, 1574, 1574))
    assert stats.power_mw == {
        "VDD_GPU": 37939,
        "VDD_CPU_SOC_MSS": 30059,
        "VIN_SYS_5V0": 15486,
        "VIN": 124486,
    }


@pytest.mark.parametrize(
    ("line", "gpu", "emc"),
    [
        ("RAM 1/2MB GR3D_FREQ 5% EMC_FREQ 7%", (5, ()), (7, None)),
        ("RAM 1/2MB EMC_FREQ @4266 GR3D_FREQ @[1574,1574]", (None, (1574, 1574)), (None, 4266)),
        ("RAM 1/2MB EMC_FREQ 95%@1600 GR3D_FREQ 99%@[1098,0]", (99, (1098, 0)), (95, 1600)),
        ("RAM 1/2MB", (None, ()), (None, None)),
    ],
)
def test_every_form_of_load_and_clock(
    line: str, gpu: tuple[int | None, tuple[int, ...]], emc: tuple[int | None, int | None]
) -> None:
    """As the guide lists them; what is missing is not zero."""
    stats = parse_tegrastats(line)
    assert stats is not None
    assert (stats.gpu_percent, stats.gpu_mhz) == gpu
    assert (stats.emc_percent, stats.emc_mhz) == emc


def test_what_is_switched_off_has_no_temperature() -> None:
    """Though tegrastats prints one."""
    stats = parse_tegrastats("RAM 1/2MB CV0@-256C CPU@47.9C CV1@-256.000C/-256C PMIC@100C tj@255C")
    assert stats is not None
    assert stats.temperatures_c == {"CPU": 47.9, "PMIC": 100.0}


def test_processors_with_one_clock_for_all() -> None:
    """As lines of L4T 28 and idle Thors have it."""
    stats = parse_tegrastats("RAM 1/2MB CPU [0%,5%,off]@2601")
    assert stats is not None
    assert stats.cpu == (CoreLoad(percent=0, mhz=2601), CoreLoad(percent=5, mhz=2601), None)


@pytest.mark.parametrize("line", ["", "tegrastats: command not found", "CPU [1%@2]", "RAM 1/2kB"])
def test_a_line_of_something_else(line: str) -> None:
    """It is none of tegrastats'."""
    assert parse_tegrastats(line) is None


def test_clocks_that_follow_the_load() -> None:
    """Orin Nano: kHz of processors and Hz of GPU and memory, in MHz."""
    assert parse_jetson_clocks(ORIN_NANO.jetson_clocks) == Clocks(
        cpu=(
            Clock(min_mhz=729.6, max_mhz=1344.0, now_mhz=729.6),
            Clock(min_mhz=729.6, max_mhz=1344.0, now_mhz=1190.4),
        ),
        gpu=Clock(min_mhz=306.0, max_mhz=918.0, now_mhz=306.0),
        emc=Clock(min_mhz=204.0, max_mhz=3199.0, now_mhz=2133.0),
    )


@pytest.mark.parametrize(
    ("board", "gpu_mhz", "emc_mhz", "fixed"),
    [
        (NANO, 230.4, 1600.0, False),
        (ORIN_NANO, 306.0, 2133.0, False),
        (AGX_ORIN, 1300.5, 3199.0, True),
        (AGX_THOR, 1575.0, 4266.0, True),
    ],
    ids=["Nano", "Orin Nano", "AGX Orin", "AGX Thor"],
)
def test_what_jetson_clocks_says(board: Board, gpu_mhz: float, emc_mhz: float, fixed: bool) -> None:
    """From L4T 32 to 39: processors with and without `Online`, Thor's GPU by its cluster."""
    clocks = parse_jetson_clocks(board.jetson_clocks)
    assert clocks is not None
    assert clocks.gpu is not None
    assert clocks.emc is not None
    assert (clocks.gpu.now_mhz, clocks.emc.now_mhz) == (gpu_mhz, emc_mhz)
    assert clocks.are_fixed is fixed


def test_a_processor_that_is_switched_off_leaves_clocks_fixed() -> None:
    """AGX Orin in its 30 W mode after jetson_clocks: what sleeps keeps its range."""
    text = (
        "cpu7:  Online=1 Governor=schedutil MinFreq=1728000 MaxFreq=1728000 CurrentFreq=1728000\n"
        "cpu8:  Online=0 Governor=schedutil MinFreq=729600 MaxFreq=2201600 CurrentFreq=729600\n"
        "GPU MinFreq=612000000 MaxFreq=612000000 CurrentFreq=612000000\n"
    )
    clocks = parse_jetson_clocks(text)
    assert clocks is not None
    assert (len(clocks.cpu), clocks.are_fixed, clocks.emc) == (1, True, None)


@pytest.mark.parametrize("text", [NOT_ROOT, "", "jetson_clocks: not found"])
def test_jetson_clocks_without_the_right(text: str) -> None:
    """It prints no clocks."""
    assert parse_jetson_clocks(text) is None


def test_clocks_from_files_that_anyone_may_read(tmp_path: Path) -> None:
    """Processors and GPU; the memory's clock needs root."""
    policy, gpu = "sys/devices/system/cpu/cpufreq/policy0", "sys/class/devfreq/17000000.gpu"
    files = {
        "proc/device-tree/model": "NVIDIA Jetson Orin NX\0",
        f"{policy}/scaling_min_freq": "729600\n",
        f"{policy}/scaling_max_freq": "1984000\n",
        f"{policy}/scaling_cur_freq": "1190400\n",
        f"{gpu}/min_freq": "306000000\n",
        f"{gpu}/max_freq": "918000000\n",
        f"{gpu}/cur_freq": "612000000\n",
    }
    assert read_clocks(lay_out(tmp_path, files)) == Clocks(
        cpu=(Clock(min_mhz=729.6, max_mhz=1984.0, now_mhz=1190.4),),
        gpu=Clock(min_mhz=306.0, max_mhz=918.0, now_mhz=612.0),
        emc=None,
    )


def test_the_memorys_clock_with_roots_rights(tmp_path: Path) -> None:
    """From the kernel's debugging files, which only root may read."""
    emc = "sys/kernel/debug/bpmp/debug/clk/emc"
    files = {
        "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "729600\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "729600\n",
        "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "729600\n",
        f"{emc}/min_rate": "204000000\n",
        f"{emc}/max_rate": "3199000000\n",
        f"{emc}/rate": "2133000000\n",
    }
    clocks = read_clocks(lay_out(tmp_path, files))
    assert clocks is not None
    assert clocks.emc == Clock(min_mhz=204.0, max_mhz=3199.0, now_mhz=2133.0)
    assert clocks.are_fixed


def test_a_machine_without_clocks(tmp_path: Path) -> None:
    """A virtual machine reports none."""
    assert read_clocks(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXN\n", PowerMode(name="MAXN", number=None)),
        ("NVPM VERB: Current mode: NV Power Mode: 25W\n1\n", PowerMode(name="25W", number=1)),
        (
            "NV Fan Mode:quiet\nNV Power Mode: MAXN_SUPER\n2\n",
            PowerMode(name="MAXN_SUPER", number=2),
        ),
        ("NVPM ERROR: no service\n", None),
    ],
)
def test_other_forms_of_the_power_mode(text: str, mode: PowerMode | None) -> None:
    """Without a number, verbose, with a fan mode, and an error."""
    assert parse_power_mode(text) == mode


@pytest.mark.parametrize(
    ("text", "l4t"),
    [
        ("# R34 (release), REVISION: 1.1, GCID: 30414990, BOARD: t186ref", "34.1.1"),
        ("# R32(release), REVISION: 6.1, GCID: 27863751", "32.6.1"),
        ("# R39 (release), REVISION: 2.1\n# KERNEL_VARIANT: oot\n", "39.2.1"),
        ("Ubuntu 22.04", None),
    ],
)
def test_other_forms_of_the_release(text: str, l4t: str | None, tmp_path: Path) -> None:
    """With and without a space, with further lines, and none."""
    assert l4t_version(lay_out(tmp_path, {RELEASE: text})) == l4t


def test_a_release_that_nobody_named_has_no_jetpack(tmp_path: Path) -> None:
    """It is not given the nearest one's; its package names it."""
    assert jetpack_version(tmp_path) is None
    root = lay_out(tmp_path, {RELEASE: "# R36 (release), REVISION: 4.7"})
    assert jetpack_version(root) is None
    assert jetpack_version(lay_out(root, {DPKG: jetpack_package("4.6.1-b110")})) == "4.6.1"


def test_a_package_makes_no_jetson(tmp_path: Path) -> None:
    """Elsewhere, as in a container for another board, there is no JetPack."""
    assert jetpack_version(lay_out(tmp_path, {DPKG: jetpack_package("6.2+b77")})) is None


def test_packages_that_are_installed(tmp_path: Path) -> None:
    """By name and state; what was removed or is only known does not count."""
    status = (
        "Package: nvidia-jetpack\nStatus: install ok installed\nArchitecture: arm64\n"
        "Version: 6.2.1+b38\nDescription: JetPack\n Package: fake\n\n"
        "Package: libnvinfer8\nStatus: deinstall ok config-files\nVersion: 8.6.2\n\n"
        "Package: libnvinfer10\nStatus: install ok installed\nVersion: 10.3.0.30-1+cuda12.5\n\n"
        "Package: bash\nStatus: install ok installed\nVersion: 5.1\n"
    )
    root = lay_out(tmp_path, {DPKG: status})
    assert packages_of(root, ("nvidia-jetpack", "libnvinfer8", "libnvinfer10")) == {
        "nvidia-jetpack": "6.2.1+b38",
        "libnvinfer10": "10.3.0.30-1+cuda12.5",
    }


def test_the_cuda_toolkit(tmp_path: Path) -> None:
    """From the file that it brings, and None without it."""
    assert cuda_version(tmp_path) is None
    text = '{\n  "cuda" : {\n  "name" : "CUDA SDK",\n  "version" : "12.6.11"\n },\n "nvcc" : {"version" : "1"}}'
    assert cuda_version(lay_out(tmp_path, {"usr/local/cuda/version.json": text})) == "12.6.11"


@pytest.mark.parametrize(
    ("tensorrt", "jetpack", "sentence"),
    [
        ("10.2.0.19-1+cuda12.5", "6.0", "TensorRT 10.2.0 builds faulty INT8 engines"),
        ("11.0.0.114", "7.2", "TensorRT 11.0.0.114 is not made for Jetson"),
        ("11.3.0", None, "TensorRT 11.3.0 is not made for Jetson"),
        ("11.4.1", "6.2.1", "TensorRT 11.4.1 needs JetPack 7.2.2 or newer, and this is 6.2.1"),
        ("11.4.1", "7.2", "TensorRT 11.4.1 needs JetPack 7.2.2 or newer, and this is 7.2"),
        ("11.4.1", "7.2.2", None),
        ("11.4.1", None, None),
        ("10.3.0.30-1+cuda12.5", "6.2", None),
        ("10.16.1", "7.2", None),
        ("10.2.1", "6.1", None),
        ("8.6.2.3-1+cuda12.2", "6.0", None),
    ],
)
def test_the_tensorrt_of_a_jetpack(
    tensorrt: str, jetpack: str | None, sentence: str | None
) -> None:
    """What does not belong together has its sentence; the rest has none."""
    problem = tensorrt_problem(tensorrt, jetpack)
    assert (problem is None) if sentence is None else (problem or "").startswith(sentence)


def test_the_numbers_of_a_version() -> None:
    """Up to what follows them; text without any has none."""
    assert version_of("10.3.0.30-1+cuda12.5") == (10, 3, 0, 30)
    assert version_of("unknown") == ()


def test_every_rail_is_listed_with_its_name(tmp_path: Path) -> None:
    """Also those that another one feeds; channels without a load or a name are none."""
    rails = all_rails(lay_out(tmp_path, AGX_ORIN.files))
    assert [rail.name for rail in rails] == [
        "VDD_GPU_SOC",
        "VDD_CPU_CV",
        "VIN_SYS_5V0",
        "VDDQ_VDD2_1V8AO",
    ]
