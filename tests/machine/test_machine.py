"""What a machine reports of itself, read from files laid out as Linux has them."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path

import pytest
from machine_files import lay_out

from edgeres import __version__
from edgeres.machine import describe_machine, has_nvidia_gpu, int8_may_saturate, usable_cores
from edgeres.serialization import to_json

DESKTOP = {
    "proc/cpuinfo": (
        "processor\t: 0\nmodel name\t: AMD EPYC 9B45\nflags\t\t: fpu sse2 avx2 avx_vnni avx512_vnni\n"
        "\nprocessor\t: 1\nmodel name\t: AMD EPYC 9B45\nflags\t\t: fpu sse2 avx2 avx_vnni avx512_vnni\n"
    ),
    "proc/meminfo": "MemTotal:       16384000 kB\nMemFree: 1 kB\nMemAvailable:    8192512 kB\n",
    "proc/loadavg": "0.15 1.20 3.75 1/200 4321\n",
    "proc/sys/kernel/osrelease": "6.8.0-41-generic\n",
    "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    "dev/nvidiactl": "",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": (
        "Model: \t\t NVIDIA GeForce RTX 3080\nIRQ:   \t\t 120\n"
    ),
}

JETSON = {
    "proc/cpuinfo": "".join(
        f"processor\t: {core}\nBogoMIPS\t: 62.50\n"
        "Features\t: fp asimd evtstrm aes asimdhp asimddp uscat\n"
        "CPU implementer\t: 0x41\nCPU part\t: 0xd42\n\n"
        for core in range(6)
    ),
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "schedutil\n",
    "dev/nvhost-gpu": "",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.68"}}',
}


def test_a_desktop_with_a_gpu(tmp_path: Path) -> None:
    """Every figure, from the files of an x86 machine."""
    machine = describe_machine(lay_out(tmp_path, DESKTOP))
    assert (machine.cpu, machine.cores) == ("AMD EPYC 9B45", 2)
    assert machine.simd == ("avx2", "avx_vnni", "avx512_vnni")
    assert machine.governor == "performance, powersave"
    assert machine.load_average == (0.15, 1.2, 3.75)
    assert (machine.memory_mib, machine.memory_available_mib) == (16000, 8000)
    assert (machine.os, machine.kernel) == ("Ubuntu 24.04.1 LTS", "6.8.0-41-generic")
    assert (machine.has_nvidia_gpu, machine.gpus) == (True, ("NVIDIA GeForce RTX 3080",))
    assert machine.board is None


def test_a_jetson(tmp_path: Path) -> None:
    """An ARM core by its part number, the board by its device tree, its GPU by its node."""
    machine = describe_machine(lay_out(tmp_path, JETSON))
    assert (machine.cpu, machine.cores) == ("ARM Cortex-A78AE", 6)
    assert machine.simd == ("asimd", "asimddp")
    assert machine.governor == "schedutil"
    assert machine.board == "NVIDIA Jetson Orin Nano Developer Kit"
    assert (machine.l4t, machine.jetpack, machine.cuda) == ("36.4.3", "6.2", "12.6.68")
    assert (machine.has_nvidia_gpu, machine.gpus) == (True, ())


def test_an_unknown_arm_core_is_named_by_its_numbers(tmp_path: Path) -> None:
    """Two kinds of core in one machine are both named."""
    cpuinfo = (
        "CPU implementer : 0x41\nCPU part : 0xd08\n\nCPU implementer : 0x77\nCPU part : 0x123\n"
    )
    machine = describe_machine(lay_out(tmp_path, {"proc/cpuinfo": cpuinfo}))
    assert machine.cpu == "ARM Cortex-A72, implementer 0x77 part 0x123"


def test_a_machine_that_reports_nothing(tmp_path: Path) -> None:
    """What cannot be read is None or empty, never a guess."""
    machine = describe_machine(tmp_path)
    missing = (
        machine.cpu,
        machine.cores,
        machine.governor,
        machine.memory_mib,
        machine.memory_available_mib,
    )
    assert missing == (None,) * 5
    assert (machine.os, machine.kernel, machine.board) == (None, None, None)
    assert (machine.l4t, machine.jetpack, machine.cuda) == (None, None, None)
    assert (machine.simd, machine.load_average, machine.gpus) == ((), (), ())
    assert not machine.has_nvidia_gpu


@pytest.mark.parametrize("path", ["dev/nvidiactl", "dev/nvhost-gpu", "proc/driver/nvidia/version"])
def test_each_sign_of_a_gpu_suffices(tmp_path: Path, path: str) -> None:
    """Desktop and data centre, Jetson, and a driver without device nodes."""
    assert not has_nvidia_gpu(tmp_path)
    assert has_nvidia_gpu(lay_out(tmp_path, {path: ""}))


def test_this_machine_as_json() -> None:
    """The JSON form survives text, and agrees with the interpreter itself."""
    machine = describe_machine()
    raw = to_json(machine)
    assert json.loads(json.dumps(raw, allow_nan=False)) == raw
    assert machine.architecture == platform.machine()
    assert machine.python == platform.python_version()
    assert machine.versions["edgeres"] == __version__
    assert machine.versions["numpy"] == importlib.metadata.version("numpy")


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its version is None, and the others are there."""

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    machine = describe_machine()
    assert machine.versions == {
        "edgeres": __version__,
        "numpy": None,
        "onnx": None,
        "onnxruntime": None,
    }


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "avx2 fma", True),
        ("x86_64", "avx2 avx512f", True),
        ("x86_64", "avx2 avx_vnni", False),
        ("x86_64", "avx512f avx512_vnni", False),
        ("AMD64", "", True),
        ("aarch64", "asimd", False),
    ],
)
def test_only_x86_without_exact_products_may_saturate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, expected: bool
) -> None:
    """VNNI adds the products in 32 bits; a processor that lists nothing is not trusted to."""
    monkeypatch.setattr("platform.machine", lambda: machine)
    root = lay_out(tmp_path, {"proc/cpuinfo": f"processor\t: 0\nflags\t\t: {flags}\n"})
    assert int8_may_saturate(root) is expected


@pytest.mark.parametrize(
    ("allowed", "siblings", "cores"),
    [
        ({0, 1, 2, 3}, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, 2),
        ({0, 1}, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, 2),
        ({1, 3}, {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, 1),
        ({0, 5}, {}, 2),
    ],
)
def test_cores_are_counted_once(
    allowed: set[int],
    siblings: dict[int, str],
    cores: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two threads of a core are one, and cores that the process may not use are none."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: allowed)
    folder = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = lay_out(tmp_path, {folder.format(n): f"{text}\n" for n, text in siblings.items()})
    assert usable_cores(root) == cores
