"""What Linux says of itself in small files: absent or unreadable ones are None, never an error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def text_of(path: Path) -> str | None:
    """Returns a file's text without the NUL that ends a device tree's; None if unreadable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def number_of(path: Path) -> int | None:
    """Returns the whole number that a file holds; None if unreadable or anything else."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None


def fields_of(path: Path) -> dict[str, list[str]]:
    """Returns the values of every `name : value` line of a file, by name."""
    found: dict[str, list[str]] = {}
    for line in (text_of(path) or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), []).append(value.strip())
    return found


def total_of(paths: tuple[Path, ...]) -> int | None:
    """Returns the sum of the numbers in those files that can be read; None where none can."""
    numbers = [number for path in paths if (number := number_of(path)) is not None]
    return sum(numbers) if numbers else None


def mib_of(memory: Mapping[str, list[str]], name: str) -> int | None:
    """Returns a line of /proc/meminfo, which counts in kB of 1024 bytes, in MiB.

    Args:
        memory: of `fields_of`.
        name: such as `MemTotal`.
    """
    values = memory.get(name)
    return int(values[0].split()[0]) // 1024 if values else None
