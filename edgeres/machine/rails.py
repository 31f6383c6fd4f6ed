"""The power rails of a Jetson: what its INA3221 chips measure, in both layouts of L4T.

L4T 35 and later have the kernel's own driver under /sys/class/hwmon (millivolts, milliamperes);
L4T 32 has NVIDIA's under /sys/bus/i2c/drivers/ina3221x (milliwatts).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeres.machine.sysfs import number_of, text_of

TOTALS = ("VDD_IN", "POM_5V_IN")
"""Rails that feed the whole module; the others are parts of them. Source: Jetson Linux Developer
Guide, Platform Power and Performance, Jetson Nano, Xavier NX, Orin NX and Orin Nano."""

NESTED = ("VDDQ_VDD2_1V8AO",)
"""Rails that another one feeds: on AGX Orin VIN_SYS_5V0. Source: Jetson Linux Developer Guide,
Platform Power and Performance, Jetson AGX Orin: the module is the sum of the other three."""

CARRIER = "CVB_"
"""How the names of the carrier board's own rails begin. Source: Linux, tegra234-p3701-0008.dtsi."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """One measured supply."""

    name: str
    """Label in the device tree, such as `VDD_IN`."""
    factors: tuple[Path, ...]
    """Files whose product is the power: voltage in mV and current in mA, or power in mW."""

    def watts(self) -> float:
        """Returns the power now; negative values are the chip's offset at no load.

        Raises:
            OSError: a file cannot be read, or holds no number.
        """
        product = 1.0
        for file in self.factors:
            value = number_of(file)
            if value is None:
                raise OSError(f"{file} holds no number")
            # mV and mA become V and A, whose product is W; a single factor is in mW.
            product *= value / 1000
        return product


def all_rails(root: Path = Path("/")) -> tuple[Rail, ...]:
    """Returns every rail that is measured, in the order of chips and channels.

    Source: Linux, Documentation/hwmon/ina3221.rst; L4T 32, drivers/staging/iio/meter/ina3221.c;
    Jetson TX2 Thermal Design Guide, 6.
    """
    channels: list[tuple[Path, tuple[Path, ...]]] = []
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if text_of(chip / "name") == "ina3221":
            for label in sorted(chip.glob("in[0-9]_label")):
                number = label.name[2]
                # Channel 7, the sum of shunts, has no current, so it drops out below.
                channels.append((label, (chip / f"in{number}_input", chip / f"curr{number}_input")))
    # The folder is `iio:device0`, or on TX2 `iio_device`.
    drivers = root / "sys/bus/i2c/drivers/ina3221x"
    channels += (
        (label, (label.with_name(f"in_power{label.name[-1]}_input"),))
        for label in sorted(drivers.glob("*/iio[:_]device*/rail_name_[0-9]"))
    )
    return tuple(
        Rail(name=name, factors=files)
        for label, files in channels
        # NC is a channel that is not connected.
        if (name := text_of(label)) not in {None, "NC"}
        if all(number_of(file) is not None for file in files)
    )


def find_rails(root: Path = Path("/")) -> tuple[Rail, ...]:
    """Returns the rails that together feed the module, none of them twice; empty elsewhere.

    That is the rail that feeds the whole module, or where none does the parts that add up to it.
    """
    rails = all_rails(root)
    totals = tuple(rail for rail in rails if rail.name in TOTALS)
    parts = (r for r in rails if r.name not in NESTED and not r.name.startswith(CARRIER))
    return totals[:1] or tuple(parts)
