"""Linux's small files about itself: an absent or unreadable one is None, never an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

LOWEST_C, HIGHEST_C = -55.0, 150.0
"""Temperatures at which a board can work. Chosen: the military range of silicon, and what its
junctions do not survive; industrial Jetsons are rated from -40."""


def text_of(path: Path) -> str | None:
    """Returns a file's text without the NUL that ends a device tree's; None if unreadable."""
    try:
        # Firmware may put bytes that are no UTF-8 into the name of a board.
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def number_of(path: Path) -> int | None:
    """Returns the whole number that a file holds; None if unreadable or anything else."""
    try:
        # `int` ignores the line's end. A sensor that is switched off answers with EINVAL.
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None


def temperature(celsius: float | None) -> float | None:
    """Returns degrees that silicon can have; None for what a sensor answers without a reading."""
    # A Jetson's zones of what is switched off hold -256000; others answer with 0 K or 255 degrees.
    if celsius is None or not LOWEST_C <= celsius <= HIGHEST_C:
        return None
    return celsius


def fields_of(path: Path) -> dict[str, list[str]]:
    """Returns the values of every `name : value` line of a file, by name."""
    fields: dict[str, list[str]] = {}
    for line in (text_of(path) or "").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip(), []).append(value.strip())
    return fields


def total_of(numbers: Iterable[int | None]) -> int | None:
    """Returns the sum of the numbers that are not None; None where all are."""
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None


def mib_of(memory: Mapping[str, list[str]], name: str) -> int | None:
    """Returns a line of /proc/meminfo, which counts in kB of 1024 bytes, in MiB.

    Args:
        memory: of `fields_of`.
        name: such as `MemTotal`.
    """
    values = memory.get(name)
    return int(values[0].split()[0]) // 1024 if values else None
