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
from typing import TypeVar

from edgeres.machine.meters import Meter, NoMeter
from edgeres.machine.ticker import every
from edgeres.plurals import counted

IDLE_S = 3.0
"""Time over which the idle power is taken. Chosen: thirty updates of the slowest meter, NVML's."""

MIN_UPDATES = 20
"""Updates of the meter that work must last: the last one may be missed, 5 % of twenty."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What one piece of work cost."""

    json_keys = (
        "meter",
        "scope",
        "images",
        "seconds",
        "joules",
        "total_joules",
        "idle_watts",
        "joules_per_image",
        "images_per_joule",
    )

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

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"energy of {counted(self.images, 'image')}, expected at least 1")

    @property
    def joules(self) -> float:
        """What the work itself cost: the total without what idling would have cost."""
        return self.total_joules - self.idle_watts * self.seconds

    @property
    def joules_per_image(self) -> float:
        """Cost of one image above idling; not above zero where the meter cannot resolve it."""
        return self.joules / self.images

    @property
    def images_per_joule(self) -> float | None:
        """Images for one joule above idling; None where the work drew no more than idling."""
        return self.images / self.joules if self.joules > 0 else None


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
    _, drawn = _metered(meter, lambda: sleep(seconds), clock)
    return drawn if isinstance(drawn, NoEnergy) else drawn.joules / drawn.seconds


def measure_energy(
    meter: Meter | NoMeter,
    work: Callable[[], int],
    *,
    idle_watts: float | NoEnergy,
    clock: Callable[[], float] = time.monotonic,
) -> Energy | NoEnergy:
    """Runs `work` and returns what it cost, or why that is unavailable; `work` runs either way.

    Args:
        meter: what measures.
        work: returns the number of images that it inferred, at least 1; whatever it raises
            passes through.
        idle_watts: of `idle_watts`.
        clock: returns seconds.
    """
    images, drawn = _metered(meter, work, clock)
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
    meter: Meter | NoMeter, work: Callable[[], Result], clock: Callable[[], float]
) -> tuple[Result, _Drawn | NoEnergy]:
    """Returns what `work` returned and what was drawn meanwhile."""
    if isinstance(meter, NoMeter):
        return work(), NoEnergy(reason=meter.reason)
    joules, reason = 0.0, None

    def read() -> None:
        nonlocal joules, reason
        try:
            joules = meter.joules()
        except OSError as error:
            reason = f"The meter {meter.name} stopped answering: {error}."

    # The clock is read just after each reading, so that energy and time span the same.
    read()
    first, start = joules, clock()
    with every(meter.interval_s, read):
        result = work()
    read()
    seconds, least_s = clock() - start, MIN_UPDATES * meter.update_s
    if reason is None and seconds < least_s:
        reason = (
            f"The work took {seconds:.2f} s, too short for {meter.name}, which updates every "
            f"{meter.update_s:g} s: {least_s:g} s or more can be measured. Take more images."
        )
    if reason is not None:
        return result, NoEnergy(reason=reason)
    return result, _Drawn(joules=joules - first, seconds=seconds)
