"""The machine that a verdict was reached on, read from the files that Linux keeps.

Every path stands below `root`, so that another machine's files can be read too. What a machine
does not report is None or empty. No package is imported to learn its version.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeres.machine.l4t import cuda_version, jetpack_version, l4t_version
from edgeres.machine.sysfs import fields_of, mib_of, text_of
from edgeres.version import __version__

SIMD_FEATURES = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "amx_int8",
    "neon",
    "asimd",
    "asimddp",
    "i8mm",
)
"""CPU flags that decide which INT8 and FP32 kernels ONNX Runtime's CPU code takes, as
/proc/cpuinfo spells them. Source: onnxruntime/core/mlas/lib/platform.cpp."""

_X86 = frozenset({"x86_64", "amd64", "i686"})
_EXACT_SIMD = frozenset({"avx_vnni", "avx512_vnni", "amx_int8"})

_PACKAGES = ("numpy", "onnx", "onnxruntime")

# On desktops and in data centres, on a Jetson, and where a driver has no device nodes.
_GPU_PATHS = ("dev/nvidiactl", "dev/nvhost-gpu", "proc/driver/nvidia")

_ARM_CORES: Mapping[tuple[str, str], str] = {
    ("0x41", "0xd03"): "ARM Cortex-A53",
    ("0x41", "0xd07"): "ARM Cortex-A57",
    ("0x41", "0xd08"): "ARM Cortex-A72",
    ("0x41", "0xd0b"): "ARM Cortex-A76",
    ("0x41", "0xd0c"): "ARM Neoverse-N1",
    ("0x41", "0xd40"): "ARM Neoverse-V1",
    ("0x41", "0xd42"): "ARM Cortex-A78AE",
    ("0x41", "0xd4f"): "ARM Neoverse-V2",
    ("0x41", "0xd83"): "ARM Neoverse-V3AE",
    ("0x4e", "0x003"): "NVIDIA Denver 2",
    ("0x4e", "0x004"): "NVIDIA Carmel",
}
"""Cores of Jetson boards and their kin by implementer and part, which is all that an ARM
/proc/cpuinfo has. Source: util-linux, sys-utils/lscpu-arm.c."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine at one moment."""

    cpu: str | None
    """Model name."""
    cores: int | None
    """Logical processors that are online."""
    architecture: str
    """Such as `x86_64` or `aarch64`."""
    simd: tuple[str, ...]
    """Those of `SIMD_FEATURES` that the CPU has."""
    governor: str | None
    """Frequency governor; names joined by commas where the processors differ."""
    load_average: tuple[float, ...]
    """Runnable threads on average over 1, 5 and 15 minutes."""
    memory_mib: int | None
    """Memory that the kernel manages."""
    memory_available_mib: int | None
    """Memory that new work can have without swapping."""
    os: str | None
    """Name and version of the distribution."""
    kernel: str | None
    """Release of the Linux kernel."""
    python: str
    versions: Mapping[str, str | None]
    """Version of each package that a figure may depend on; None where it is not installed."""
    board: str | None
    """Model in the device tree, such as `NVIDIA Jetson Orin Nano Developer Kit`."""
    has_nvidia_gpu: bool
    gpus: tuple[str, ...]
    """Names of the GPUs, where NVIDIA's driver lists them."""
    l4t: str | None = None
    """Version of Jetson Linux, such as `36.4.3`."""
    jetpack: str | None = None
    """Version of JetPack, such as `6.2`."""
    cuda: str | None = None
    """Version of the CUDA toolkit."""


def describe_machine(root: Path = Path("/")) -> Machine:
    """Returns what the files below `root` and this interpreter report of the machine."""
    cpuinfo = fields_of(root / "proc/cpuinfo")
    memory = fields_of(root / "proc/meminfo")
    governors = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    release = re.search(r"^PRETTY_NAME=(.*)", text_of(root / "etc/os-release") or "", re.MULTILINE)
    gpus = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    return Machine(
        cpu=_cpu_name(cpuinfo),
        cores=len(cpuinfo.get("processor", ())) or None,
        architecture=platform.machine(),
        simd=_simd(cpuinfo),
        governor=", ".join(sorted({name for file in governors if (name := text_of(file))})) or None,
        load_average=tuple(
            float(load) for load in (text_of(root / "proc/loadavg") or "").split()[:3]
        ),
        memory_mib=mib_of(memory, "MemTotal"),
        memory_available_mib=mib_of(memory, "MemAvailable"),
        # os-release allows either kind of quotes, and none.
        os=release[1].strip("\"'") if release else None,
        kernel=text_of(root / "proc/sys/kernel/osrelease"),
        python=platform.python_version(),
        versions={"edgeres": __version__, **{name: _version(name) for name in _PACKAGES}},
        board=text_of(root / "proc/device-tree/model"),
        has_nvidia_gpu=has_nvidia_gpu(root),
        gpus=tuple(name for file in gpus for name in fields_of(file).get("Model", ())),
        l4t=l4t_version(root),
        jetpack=jetpack_version(root),
        cuda=cuda_version(root),
    )


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """Returns whether NVIDIA's driver shows a GPU: a desktop's, a data centre's or a Jetson's."""
    return any((root / path).exists() for path in _GPU_PATHS)


def usable_cores(root: Path = Path("/")) -> int:
    """Returns the physical cores that this process may run on; two threads of a core count once.

    Source: Linux, Documentation/admin-guide/cputopology.rst, thread_siblings_list.
    """
    folder = root / "sys/devices/system/cpu"
    return len(
        {
            text_of(folder / f"cpu{number}/topology/thread_siblings_list") or str(number)
            for number in os.sched_getaffinity(0)
        }
    )


def int8_may_saturate(root: Path = Path("/")) -> bool:
    """Returns whether ONNX Runtime's u8 x s8 products can saturate on this processor.

    x86's older instruction for them, VPMADDUBSW, adds pairs of products in 16 bits; VNNI and AMX
    do not, nor does ARM. A processor that does not list its features is taken for one without.
    Source: Intel Intrinsics Guide, _mm256_maddubs_epi16.
    """
    if platform.machine().lower() not in _X86:
        return False
    return not _EXACT_SIMD & set(_simd(fields_of(root / "proc/cpuinfo")))


def _cpu_name(cpuinfo: Mapping[str, list[str]]) -> str | None:
    if names := cpuinfo.get("model name"):
        return names[0]
    # ARM's cpuinfo has no model name, and a board may have two kinds of core: name each once.
    parts = zip(cpuinfo.get("CPU implementer", ()), cpuinfo.get("CPU part", ()), strict=False)
    cores = {
        _ARM_CORES.get((implementer, part), f"implementer {implementer} part {part}"): None
        for implementer, part in parts
    }
    return ", ".join(cores) or None


def _simd(cpuinfo: Mapping[str, list[str]]) -> tuple[str, ...]:
    # x86 has `flags`, ARM has `Features`.
    lists = cpuinfo.get("flags", []) + cpuinfo.get("Features", [])
    flags = frozenset(lists[0].split()) if lists else frozenset()
    return tuple(name for name in SIMD_FEATURES if name in flags)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine_kind() -> str:
    """Returns what decides the last bits of a float here: processor, GPUs, ONNX Runtime."""
    machine = describe_machine()
    parts = (machine.cpu, *machine.simd, *machine.gpus)
    runtime = machine.versions.get("onnxruntime", "absent")
    return ", ".join([*filter(None, parts), f"onnxruntime {runtime}"])


def several_kinds_note(kinds: Sequence[str]) -> str:
    """Returns what it means that parts of one result are of several kinds of machine."""
    return (
        f"The images were run on {len(kinds)} kinds of machine ({'; '.join(kinds)}), whose sums may "
        "differ in the last bits: one kind alone, by --on tag:NAME, gives what one machine gives."
    )
