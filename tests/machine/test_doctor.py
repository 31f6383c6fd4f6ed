"""A complete board: what doctor reads of it, and what it advises to install or set."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from boards import AGX_ORIN, AGX_THOR, BOARDS, NANO, ORIN_NANO, Board
from fake_nvml import FakeNvml, install
from machine_files import CALM, lay_out
from rich.console import Console

from edgeres.installation import install_hint
from edgeres.machine import Advice, DoctorReport, JetsonBoard, examine_machine
from edgeres.machine.capabilities import capabilities
from edgeres.machine.clocks import PowerMode
from edgeres.machine.commands import CommandRunner
from edgeres.machine.doctor import advise
from edgeres.machine.jetson import is_jetson, module_version, read_board
from edgeres.report import render_doctor
from edgeres.serialization import to_json

DPKG = (
    "Package: nvidia-jetpack\nStatus: install ok installed\nVersion: 6.2+b77\n\n"
    "Package: libnvinfer10\nStatus: install ok installed\nVersion: 10.3.0.30-1+cuda12.5\n"
)
MEMINFO = "MemTotal: 7802860 kB\nMemAvailable: 5242880 kB\nSwapTotal: 3901424 kB\n"


def files_of(board: Board) -> dict[str, str]:
    """Returns the files of a board."""
    return {
        "proc/device-tree/model": board.model + "\0",
        "etc/nv_tegra_release": board.release + "\n# KERNEL_VARIANT: oot\n",
        "etc/nvpmodel.conf": board.modes,
        "proc/meminfo": MEMINFO,
        "dev/nvhost-gpu": "",
        **board.files,
    }


def tools_of(board: Board) -> CommandRunner:
    """Returns a runner of a board's own tools."""
    output = {
        "nvpmodel -q": board.nvpmodel,
        "jetson_clocks --show": board.jetson_clocks,
        "tegrastats --interval 500": f"RAM 1/2MB\n{board.tegrastats}\nRAM 1/",
    }
    return lambda command, timeout_s: output[" ".join(command)] if timeout_s <= 10 else None


def no_tools(command: Sequence[str], timeout_s: float) -> None:
    """A machine on which every tool is missing."""


def modules(**versions: str) -> Callable[[str], str | None]:
    """Returns which Python modules there are."""
    return versions.get


def board_of(root: Path, board: Board, **more: str) -> JetsonBoard:
    """Returns what is read of a board, with further files."""
    files = {**files_of(board), **more}
    read = read_board(lay_out(root, files), run=tools_of(board), module=modules())
    assert read is not None
    return read


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_every_board_is_read(tmp_path: Path, board: Board) -> None:
    """From its files and its tools."""
    read = board_of(tmp_path, board)
    assert (read.model, read.l4t, read.jetpack) == (board.model, board.l4t, board.jetpack)
    assert read.power_mode is not None
    assert (read.power_mode.name, read.power_mode.number) == board.mode
    assert read.stats is not None
    assert read.stats.ram_total_mb != 2
    assert set(board.rails) <= set(read.watts)
    assert json.loads(json.dumps(to_json(read), allow_nan=False))["l4t"] == board.l4t


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_board_without_its_tools(tmp_path: Path, board: Board) -> None:
    """In a container none is there: what files have is there, the rest is None."""
    root = lay_out(tmp_path, {**files_of(board), "var/lib/nvpmodel/status": "pmode:0001"})
    read = read_board(root, run=no_tools, module=modules())
    assert read is not None
    assert (read.l4t, read.stats, read.clocks) == (board.l4t, None, None)
    names = {mode.number: mode.name for mode in read.power_modes}
    assert read.power_mode == PowerMode(name=names.get(1, "mode 1"), number=1)


def test_what_jetpack_put_on_a_board(tmp_path: Path) -> None:
    """Packages, toolkit, and the modules that this Python sees."""
    more = {
        "var/lib/dpkg/status": DPKG,
        "usr/local/cuda/version.json": '{"cuda": {"version": "12.6.68"}}',
    }
    root = lay_out(tmp_path, {**files_of(ORIN_NANO), **more})
    read = read_board(
        root, run=tools_of(ORIN_NANO), module=modules(tensorrt="10.3.0", pycuda="2025.1")
    )
    assert read is not None
    assert (read.jetpack, read.cuda, read.tensorrt) == ("6.2", "12.6.68", "10.3.0.30-1+cuda12.5")
    assert read.modules == {"tensorrt": "10.3.0", "pycuda": "2025.1"}
    assert (read.memory_mib, read.memory_available_mib, read.swap_mib) == (7619, 5120, 3809)


def test_a_desktop_is_no_jetson(tmp_path: Path) -> None:
    """Nor is an ARM board of somebody else."""
    assert not is_jetson(tmp_path)
    other = lay_out(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5\0"})
    assert not is_jetson(other)
    assert read_board(other, run=no_tools) is None
    assert is_jetson(lay_out(tmp_path, {"etc/nv_tegra_release": "x"}))


def test_the_version_of_a_module() -> None:
    """That of its package; None where it is not installed, and `unknown` where it has none."""
    assert module_version("no_such_module") is None
    assert module_version("json") == "unknown"
    assert (module_version("pytest") or "").split(".")[0].isdecimal()


@pytest.fixture
def ready(tmp_path: Path) -> JetsonBoard:
    """A board on which nothing is left to do."""
    more = {
        "var/lib/dpkg/status": DPKG,
        "usr/local/cuda/version.json": '{"cuda": {"version": "12.6.68"}}',
    }
    read = board_of(tmp_path, AGX_ORIN, **more)
    return replace(read, modules={"tensorrt": "10.3.0", "pycuda": "2025.1"})


def advised(board: JetsonBoard) -> dict[str, Advice]:
    """Returns the advice by its name."""
    return {advice.name: advice for advice in advise(board)}


def test_a_board_that_is_ready(ready: JetsonBoard) -> None:
    """There is no advice."""
    assert advise(ready) == ()


BLOCKING = {
    "jetpack": ({"jetpack": "5.1.2", "tensorrt": "8.5.2"}, "JetPack 5.1.2 has TensorRT for", None),
    "tensorrt": (
        {"tensorrt": None, "modules": {"pycuda": "1"}},
        "TensorRT is not installed.",
        "sudo apt-get install nvidia-jetpack",
    ),
    "tensorrt_module": (
        {"modules": {"tensorrt": None, "pycuda": "1"}},
        "TensorRT 10.3.0.30-1+cuda12.5 is installed, but this Python does not see it",
        "scripts/jetson_setup.sh",
    ),
    "tensorrt_version": (
        {"modules": {"tensorrt": "11.2.0", "pycuda": "1"}},
        "TensorRT 11.2.0 is not made for Jetson: 11.4.1 is the first of its line. Use the one",
        "sudo apt-get install --reinstall nvidia-jetpack",
    ),
    "pycuda": (
        {"modules": {"tensorrt": "10.3.0"}},
        "pycuda, with which engines are run, is not installed.",
        "scripts/jetson_setup.sh",
    ),
}


@pytest.mark.parametrize("name", BLOCKING)
def test_what_stands_in_the_way(ready: JetsonBoard, name: str) -> None:
    """The fact, why it matters, and the command; nothing else is advised."""
    change, beginning, command = BLOCKING[name]
    advice = advised(replace(ready, **change))  # type: ignore[arg-type]
    assert list(advice) == [name]
    assert advice[name].blocking
    assert advice[name].sentence.startswith(beginning)
    assert advice[name].command == command


LATER = {
    "power_mode": (
        {"power_mode": PowerMode(name="MODE_15W", number=1)},
        "The power mode is MODE_15W; figures in MAXN are the board's best.",
        "sudo nvpmodel -m 0",
    ),
    "swap": (
        {"memory_mib": 7619, "swap_mib": 0},
        "The board has 7619 MiB of memory and no swap",
        "sudo fallocate -l 8G /swapfile && sudo chmod 600 /swapfile && sudo mkswap /swapfile && "
        "sudo swapon /swapfile",
    ),
    "memory": (
        {"memory_available_mib": 512},
        "512 MiB of memory are free, and GPU and programs share it.",
        "sudo systemctl isolate multi-user.target",
    ),
    "heat": ({"headroom_c": 2.5}, "A thermal zone is 2.5 degrees below the temperature", None),
}


@pytest.mark.parametrize("name", LATER)
def test_what_spoils_figures(ready: JetsonBoard, name: str) -> None:
    """Listed after what blocks."""
    change, beginning, command = LATER[name]
    advice = advised(replace(ready, **change))  # type: ignore[arg-type]
    assert list(advice) == [name]
    assert not advice[name].blocking
    assert advice[name].sentence.startswith(beginning)
    assert advice[name].command == command


def test_clocks_that_follow_the_load(tmp_path: Path, ready: JetsonBoard) -> None:
    """jetson_clocks fixes them."""
    advice = advised(replace(ready, clocks=board_of(tmp_path, ORIN_NANO).clocks))
    assert list(advice) == ["clocks"]
    assert advice["clocks"].command == "sudo jetson_clocks"


def test_the_highest_of_two_maximal_modes(tmp_path: Path) -> None:
    """On a Super board MAXN_SUPER, although its number is not 0."""
    advice = advised(board_of(tmp_path, ORIN_NANO))
    assert advice["power_mode"].command == "sudo nvpmodel -m 2"
    assert "25W" in advice["power_mode"].sentence


def test_an_old_board_is_told_first_what_blocks(tmp_path: Path) -> None:
    """A Nano as it comes: nothing runs on it, and clocks are the least of it."""
    names = list(advised(board_of(tmp_path, NANO)))
    assert names == ["jetpack", "tensorrt", "cuda", "pycuda", "clocks"]


def examined(root: Path, board: Board) -> DoctorReport:
    """Returns what doctor finds on a calm board."""
    lay_out(root, {**CALM, **files_of(board)})
    return examine_machine(root, run=tools_of(board), module=modules(), observed_s=0.0)


def test_the_whole_of_a_board(tmp_path: Path) -> None:
    """Machine, board, what works, what to do and how calm it was, in one object."""
    report = examined(tmp_path, AGX_THOR)
    raw = json.loads(json.dumps(to_json(report), allow_nan=False))
    assert set(raw) == {"schema_version", "machine", "board", "capabilities", "advice", "calm"}
    assert raw["board"]["power_mode"] == {"number": 1, "name": "120W"}
    assert raw["board"]["clocks"]["gpu"]["max_mhz"] == 1575.0
    assert raw["calm"]["stable"] is True
    works = {each["name"]: each for each in raw["capabilities"]}
    assert works["measure energy"]["detail"] == ("ina3221: VDD_GPU, VDD_CPU_SOC_MSS, VIN_SYS_5V0")
    assert works["monitor the GPU"]["detail"] == "Jetson GPU through devfreq"


def rendered(report: DoctorReport) -> str:
    """Returns what a terminal of 100 columns shows."""
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(render_doctor(report))
    return capture.get()


def test_what_a_reader_sees(tmp_path: Path) -> None:
    """Each part, with commands on lines of their own."""
    text = rendered(examined(tmp_path, ORIN_NANO))
    for part in (
        "Jetson        NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "JetPack       6.2 (Jetson Linux 36.4.3)",
        "power mode    25W",
        "clocks        follow the load",
        "GPU           306 MHz, may be 306 to 918",
        "memory (EMC)  2133 MHz, may be 204 to 3199",
        "VDD_IN 9.25 W",
        "first  TensorRT is not installed.",
        "       sudo apt-get install nvidia-jetpack",
        "then   Clocks follow the load",
    ):
        assert part in text


def test_a_desktop_has_no_part_of_a_board(tmp_path: Path) -> None:
    """And a disturbance is shown when there is one."""
    files = {
        key: text for key, text in CALM.items() if "tegra" not in text and "Jetson" not in text
    }
    hot = {"sys/class/thermal/thermal_zone0/temp": "97000\n"}
    root = lay_out(tmp_path, {**files, **hot})
    report = examine_machine(root, run=no_tools, observed_s=0.0)
    text = rendered(report)
    assert report.board is None
    assert "JetPack" not in text
    assert "now  A thermal zone came within 2.0 degrees" in text


def test_energy_and_clocks_of_a_desktops_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through NVML, which is shut down again."""
    nvml = FakeNvml()
    install(monkeypatch, nvml)
    works = {each.name: each for each in capabilities(lay_out(tmp_path, {"dev/nvidiactl": ""}))}
    assert works["measure energy"].detail == "nvml: NVIDIA Test GPU"
    assert works["monitor the GPU"].detail == "NVIDIA Test GPU through NVML"
    assert nvml.is_open == 0


def test_what_a_gpu_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT first, then pycuda; without a GPU neither is required."""
    installed: set[str] = set()
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: name if name in installed else None
    )
    install(monkeypatch, None)
    root = lay_out(tmp_path, {"dev/nvhost-gpu": ""})

    def detail(name: str) -> str:
        return next(works.detail for works in capabilities(root) if works.name == name)

    assert "python3-libnvinfer" in detail("tensorrt inference")
    assert "python3-libnvinfer" in detail("tensorrt plans")
    installed.add("tensorrt")
    assert "pycuda is missing" in detail("tensorrt inference")
    installed.add("pycuda")
    assert detail("tensorrt inference") == "run on this GPU"
    assert install_hint("pynvml") in detail("monitor the GPU")
    assert detail("onnxruntime engines") == "pip install onnxruntime"
    assert detail("export checkpoints") == f"torch is missing. {install_hint('torch')}"
    assert detail("tensorrt-rtx plans").endswith(install_hint("tensorrt_rtx"))
