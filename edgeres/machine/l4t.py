"""Which Jetson Linux and JetPack a board runs, and which TensorRT belongs to them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgeres.machine.sysfs import text_of

_RELEASE = re.compile(r"R(\d+) ?\(release\), REVISION: (\d+(?:\.\d+)*)")

_JETPACK: Mapping[str, str] = {
    "32.6.1": "4.6",
    "32.7.1": "4.6.1",
    "32.7.2": "4.6.2",
    "32.7.3": "4.6.3",
    "32.7.4": "4.6.4",
    "32.7.5": "4.6.5",
    "32.7.6": "4.6.6",
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "35.6.1": "5.1.5",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "38.2.0": "7.0",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
}
"""JetPack by its Jetson Linux. Source: NVIDIA's JetPack archive; releases that differ only in
Jetson Linux are left out, so that none is called by a name that NVIDIA did not give it."""

_JETPACK_PACKAGE = "nvidia-jetpack"

FIRST_JETPACK = (6, 0)
"""The first with Python 3.10. Source: NVIDIA JetPack 6.0 release notes, Ubuntu 22.04."""

FIRST_JETPACK_FOR_11 = (7, 2, 2)
"""Source: NVIDIA TensorRT 11.4.1, Migrating from 10.x to 11.x on Jetson/JetPack."""


def l4t_version(root: Path) -> str | None:
    """Returns the version of Jetson Linux, such as `36.4.3`; None elsewhere."""
    # "# R36 (release), REVISION: 4.3, ..." is 36.4.3.
    release = _RELEASE.search(text_of(root / "etc/nv_tegra_release") or "")
    return f"{release[1]}.{release[2]}" if release else None


def jetpack_version(root: Path) -> str | None:
    """Returns the version of JetPack; None elsewhere, or where nothing names it."""
    l4t = l4t_version(root)
    # Elsewhere a long list of packages is not read, which every bench would.
    if l4t is None:
        return None
    package = packages_of(root, (_JETPACK_PACKAGE,)).get(_JETPACK_PACKAGE)
    if package is None:
        return _JETPACK.get(l4t)
    # The package, such as `6.2.1+b38`, is newer than what was flashed where apt upgraded it.
    return re.split(r"[+-]", package)[0]


def packages_of(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Returns the versions of those Debian packages that are installed.

    Source: dpkg(1), the status file: paragraphs with `Package:`, `Status:` and `Version:`.
    """
    wanted, versions = frozenset(names), {}
    for paragraph in (text_of(root / "var/lib/dpkg/status") or "").split("\n\n"):
        # A line that begins with a space continues the one before, such as a description.
        lines = (line.partition(": ") for line in paragraph.splitlines() if line[:1] != " ")
        fields = {name: value for name, _, value in lines}
        # A package that was removed is still listed, as `deinstall ok config-files`.
        installed = fields.get("Status", "").endswith(" installed")
        if installed and fields.get("Package") in wanted and "Version" in fields:
            versions[fields["Package"]] = fields["Version"]
    return versions


def cuda_version(root: Path) -> str | None:
    """Returns the version of the CUDA toolkit, from the file that it brings."""
    text = text_of(root / "usr/local/cuda/version.json") or ""
    version = re.search(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', text)
    return version[1] if version else None


def tensorrt_problem(tensorrt: str, jetpack: str | None) -> str | None:
    """Returns why a TensorRT does not belong on a board; None where none is known.

    Source: NVIDIA TensorRT 11.2.1, 11.3.0 and 11.4.1, Migrating from 10.x to 11.x on
    Jetson/JetPack; for 10.2.0 Ultralytics' pull request 24367.

    Args:
        tensorrt: its version.
        jetpack: version of JetPack; None where it is unknown.
    """
    version = version_of(tensorrt)
    if version[:3] == (10, 2, 0):
        return "TensorRT 10.2.0 builds faulty INT8 engines"
    if (11, 0) <= version[:2] <= (11, 3):
        return f"TensorRT {tensorrt} is not made for Jetson: 11.4.1 is the first of its line"
    if version[:1] >= (11,) and jetpack is not None and version_of(jetpack) < FIRST_JETPACK_FOR_11:
        return f"TensorRT {tensorrt} needs JetPack 7.2.2 or newer, and this is {jetpack}"
    return None


def version_of(text: str) -> tuple[int, ...]:
    """Returns the numbers at the start of a version, such as (10, 3, 0, 30) of `10.3.0.30-1`."""
    numbers = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()
