"""What work cost in joules, above what the machine draws idle.

Use::

    with closing(open_meter(gpu=True)) as meter:
        idle = idle_watts(meter)
        energy = measure_energy(meter, work, idle_watts=idle)  # work() returns its images

A machine without a meter answers with the reason, `NoEnergy`, never with a guess.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgeres.machine.meters import Meter, NoMeter
from edgeres.machine.ticker import every

IDLE_S = 3.0
"""Time over which the idle power is taken. Chosen: thirty updates of the slowest meter, NVML's."""

MIN_UPDATES = 20
"""Updates of the meter that work must last: the last one may be missed, 5 % of twenty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What one piece of work cost."""

    meter: str
    """Such as `ina3221`, `nvml` or `rapl`."""
    scope: tuple[str, ...]
    """Rails or devices that are in it, such as `VDD_IN`."""
    images: int
    seconds: float
    total_joules: float
    """Drawn while the work ran."""
    idle_watts: float
    """Drawn without it."""

    @property
    def joules(self) -> float:
        """What the work itself cost: the total without what idling would have cost."""
        return self.total_joules - self.idle_watts * self.seconds

    @property
    def joules_per_image(self) -> float:
        """Cost of one image above idling; not above zero where the meter cannot tell it."""
        return self.joules / self.images

    @property
    def images_per_joule(self) -> float | None:
        """Images for one joule above idling; None where the work drew no more than idling."""
        return self.images / self.joules if self.joules > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form."""
        return {
            "meter": self.meter,
            "scope": list(self.scope),
            "images": self.images,
            "seconds": self.seconds,
            "joules": self.joules,
            "total_joules": self.total_joules,
            "idle_watts": self.idle_watts,
            "joules_per_image": self.joules_per_image,
            "images_per_joule": self.images_per_joule,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NoEnergy:
    """Why nothing is known of the energy."""

    reason: str
    """A sentence, with what to do where something can be done."""


def idle_watts(
    meter: Meter | NoMeter,
    seconds: float = IDLE_S,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float | NoEnergy:
    """Returns the power drawn while this program waits.

    Take it before the work: after it, clocks and fans need seconds to come down.

    Args:
        meter: what measures.
        seconds: how long to wait.
        clock: returns seconds.
        sleep: waits for seconds.
    """
    drawn = _metered(meter, lambda: sleep(seconds), clock)
    return drawn if isinstance(drawn, NoEnergy) else drawn.joules / drawn.seconds


def measure_energy(
    meter: Meter | NoMeter,
    work: Callable[[], int],
    *,
    idle_watts: float | NoEnergy,
    clock: Callable[[], float] = time.monotonic,
) -> Energy | NoEnergy:
    """Runs `work` and returns what it cost, or why that cannot be told; `work` runs either way.

    Args:
        meter: what measures.
        work: returns the number of images that it inferred, at least 1; whatever it raises
            passes through.
        idle_watts: of `idle_watts`.
        clock: returns seconds.
    """
    images = 0

    def counted() -> None:
        nonlocal images
        images = work()

    drawn = _metered(meter, counted, clock)
    if isinstance(drawn, NoEnergy):
        return drawn
    if isinstance(idle_watts, NoEnergy):
        return idle_watts
    return Energy(
        meter=meter.name,
        scope=meter.scope,
        images=images,
        seconds=drawn.seconds,
        total_joules=drawn.joules,
        idle_watts=idle_watts,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    joules: float
    seconds: float


def _metered(
    meter: Meter | NoMeter, work: Callable[[], None], clock: Callable[[], float]
) -> _Drawn | NoEnergy:
    if isinstance(meter, NoMeter):
        work()
        return NoEnergy(reason=meter.reason)
    account = _Account(meter)
    account.read()
    first, start = account.joules, clock()
    with every(meter.interval_s, account.read):
        work()
    account.read()
    seconds = clock() - start
    if account.reason is not None:
        return NoEnergy(reason=account.reason)
    if seconds < MIN_UPDATES * meter.update_s:
        return NoEnergy(
            reason=f"The work took {seconds:.2f} s, too short for {meter.name}, which updates "
            f"every {meter.update_s:g} s: {MIN_UPDATES * meter.update_s:g} s or more can be told. "
            "Take more images."
        )
    return _Drawn(joules=account.joules - first, seconds=seconds)


class _Account:
    """Reads a meter, and keeps the reason where it stops answering."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.joules = 0.0
        self.reason: str | None = None

    def read(self) -> None:
        try:
            self.joules = self._meter.joules()
        except OSError as error:
            self.reason = f"The meter {self._meter.name} stopped answering: {error}."
