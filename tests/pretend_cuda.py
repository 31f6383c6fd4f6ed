"""The pretend CUDA driver of tests/cuda, built on the fly, and what tests ask of it.

It takes the place of `libcuda.so.1` in the process that loads it, for pycuda as for edgeres: the
loader knows a library by that name. So tests that use it come last in a run.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "cuda"

OUT_OF_MEMORY = 2
LAUNCH_FAILED = 719

_GIB = 1 << 30


class Counts(ctypes.Structure):
    """What lives on the pretend device, and what it did."""

    _fields_ = [
        (name, ctypes.c_long)
        for name in (
            "device_blocks",
            "device_bytes",
            "host_blocks",
            "host_bytes",
            "allocations",
            "streams",
            "events",
            "graphs",
            "executables",
            "contexts",
            "launches",
            "copies",
            "abandoned",
            "bad_frees",
        )
    ]

    def __getitem__(self, name: str) -> int:
        """Returns a count by its name."""
        return int(getattr(self, name))


LIVING = (
    "device_blocks",
    "device_bytes",
    "host_blocks",
    "host_bytes",
    "streams",
    "events",
    "graphs",
    "executables",
    "contexts",
)
"""Counts that are back at zero when everything was given back."""


@dataclass(frozen=True)
class PretendCuda:
    """The loaded driver."""

    library: ctypes.CDLL
    excused: Counter[str] = field(default_factory=Counter)
    """What a test did wrong on purpose, by kind."""

    def set_device(
        self,
        *,
        name: str = "Pretend GPU",
        devices: int = 1,
        capability: int = 87,
        integrated: bool = False,
        memory: int = _GIB,
        driver: int = 12060,
        bus: int = 1,
    ) -> None:
        """Says what the machine has."""
        numbers = (devices, capability, int(integrated), memory, driver, bus)
        self.library.pretend_device(name.encode(), *map(ctypes.c_long, numbers))

    def fail(self, function: str, *, after: int = 0, code: int = LAUNCH_FAILED) -> None:
        """Makes one call of a function fail, after it has worked `after` times."""
        assert self.library.pretend_fault(function.encode(), ctypes.c_long(after), code)

    def forgive(self) -> None:
        """Takes all failures back that did not happen yet."""
        self.library.pretend_no_faults()

    def excuse(self, kind: str, times: int) -> None:
        """Says that a test abandoned work, or freed twice, on purpose."""
        self.excused[kind] += times

    @property
    def counts(self) -> Counts:
        """What lives now."""
        found = Counts()
        self.library.pretend_counts(ctypes.byref(found))
        return found

    @property
    def living(self) -> dict[str, int]:
        """Everything that was not given back yet, by kind."""
        counts = self.counts
        return {name: counts[name] for name in LIVING if counts[name]}

    @property
    def depth(self) -> int:
        """Contexts on this thread's stack."""
        return int(self.library.pretend_depth())


def build_pretend_cuda(folder: Path) -> Path:
    """Compiles the driver into a folder, with the C compiler alone."""
    library = folder / "libcuda.so.1"
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        ["cc", *options, f"-Wl,-soname,{library.name}", "-o", library, "pretend_cuda.c"],
        cwd=SOURCES,
        check=True,
        timeout=60,
    )
    return library


def load_pretend_cuda(folder: Path) -> PretendCuda:
    """Builds the driver and puts it where pycuda and edgeres find NVIDIA's."""
    return PretendCuda(ctypes.CDLL(str(build_pretend_cuda(folder)), mode=ctypes.RTLD_GLOBAL))
