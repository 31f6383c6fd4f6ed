"""What samples of a machine show: each disturbance by its rule, and calm as calm."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from edgeres.machine import (
    CpuState,
    Sample,
    Severity,
    Stability,
    StabilityFinding,
)
from edgeres.machine.gpu import GpuState
from edgeres.machine.sample import CpuTicks
from edgeres.machine.stability import stability_of
from edgeres.serialization import to_json

SECONDS = 10


def sample(second: int) -> Sample:
    """Returns second `second` of a calm measurement on a board with two processors.

    A processor has 100 ticks a second, so two have 200: 90 go to the measurement, 2 to others.
    """
    return Sample(
        at_s=float(second),
        cpu=CpuState(
            governors=("performance",),
            mhz=(1500.0, 2200.0),
            load_1min=1.0,
            ticks=CpuTicks(total=200 * second, idle=108 * second, steal=0, own=7000 + 90 * second),
            processors=2,
            throttled_periods=4,
            throttle_events=1,
        ),
        memory_stall_us=900,
        swapped_pages=30,
        temperatures_c={"cpu-thermal": 50.0},
        headroom_c=40.0,
        over_current_events=3,
        power_mode="0",
        gpu=GpuState(mhz=1300.0, max_mhz=1300.0, temperature_c=60.0, reasons=("sync boost",)),
    )


CALM = tuple(sample(second) for second in range(SECONDS + 1))


def stability(change: Callable[[Sample], Sample]) -> Stability:
    """Returns what calm samples show with a change to each."""
    return stability_of([change(calm) for calm in CALM])


def findings(change: Callable[[Sample], Sample]) -> dict[str, StabilityFinding]:
    """Returns the findings by name."""
    return {finding.name: finding for finding in stability(change).findings}


def cpu(**values: object) -> Callable[[Sample], Sample]:
    """Returns a change to the processors."""
    return lambda calm: replace(calm, cpu=replace(calm.cpu, **values))  # type: ignore[arg-type]


def gpu(**values: object) -> Callable[[Sample], Sample]:
    """Returns a change to the GPU."""
    return lambda calm: replace(calm, gpu=replace(calm.gpu, **values))  # type: ignore[type-var]


def ticks(**growth: int) -> Callable[[Sample], Sample]:
    """Returns a change to how many ticks pass in each second."""

    def change(calm: Sample) -> Sample:
        assert calm.cpu.ticks is not None
        second = int(calm.at_s)
        passed = {name: value * second for name, value in growth.items()}
        return replace(calm, cpu=replace(calm.cpu, ticks=replace(calm.cpu.ticks, **passed)))

    return change


def late(change: Callable[[Sample], Sample]) -> Callable[[Sample], Sample]:
    """Returns the change, from second 6 on."""
    return lambda calm: change(calm) if calm.at_s >= 6 else calm


def test_calm_is_stable() -> None:
    """No finding, nothing unavailable, and the time that was monitored."""
    calm = stability_of(CALM)
    assert (calm.findings, calm.unavailable, calm.stable, calm.seconds) == ((), (), True, 10.0)


UNSTABLE = {
    "gpu_throttled": (
        late(gpu(reasons=("temperature, by hardware",))),
        "The GPU slowed itself down (temperature, by hardware).",
    ),
    "gpu_clock": (late(gpu(mhz=1200.0)), "The GPU ran at 1200 to 1300 MHz while measuring."),
    "power_mode": (
        late(lambda calm: replace(calm, power_mode="2")),
        "The board's power mode changed from 0 to 2.",
    ),
    "over_current": (
        late(lambda calm: replace(calm, over_current_events=5)),
        "The board lowered its clocks 2 times because it drew too much current.",
    ),
    "thermal_throttled": (
        late(lambda calm: replace(calm, slowed_by=("gpu-throttle-alert",))),
        "The kernel lowered clocks against heat (gpu-throttle-alert).",
    ),
    "cpu_throttled": (
        late(cpu(throttle_events=4)),
        "The processor slowed down 3 times because of its temperature.",
    ),
    "cpu_quota": (
        late(cpu(throttled_periods=16)),
        "The container's CPU quota stopped this program in 12 scheduling periods.",
    ),
    "steal": (
        ticks(total=200, idle=100, own=92, steal=6),
        "The hypervisor gave 3.0 % of the processors' time to other guests.",
    ),
    "other_load": (
        ticks(total=200, idle=60, own=90),
        "Other programs took 25 % of the processors' time.",
    ),
    "memory_pressure": (
        late(lambda calm: replace(calm, memory_stall_us=500_900)),
        "Programs waited for memory 0.50 s of 10.00 s.",
    ),
}
"""A disturbance by the name of its finding, and how its sentence begins."""


@pytest.mark.parametrize("name", UNSTABLE)
def test_a_disturbance_is_named(name: str) -> None:
    """With its values and what to do; the figures are then not the machine's own."""
    change, beginning = UNSTABLE[name]
    reported = findings(change)
    assert list(reported) == [name]
    assert reported[name].severity is Severity.UNSTABLE
    assert reported[name].sentence.startswith(beginning)
    assert len(reported[name].sentence) > len(beginning) + 10
    assert not stability(change).stable


@pytest.mark.parametrize("name", UNSTABLE)
def test_other_load_and_throttling_are_disturbances(name: str) -> None:
    """A clock or a power mode that somebody set, and memory, are not."""
    settings = {"gpu_clock", "cpu_clock", "power_mode", "memory_pressure"}
    change, _ = UNSTABLE[name]
    assert [finding.name for finding in stability(change).disturbances] == [name] * (
        name not in settings
    )


@pytest.mark.parametrize(("last_s", "names"), [(0.2, []), (0.99, []), (1.0, ["other_load"])])
def test_a_few_ticks_are_not_compared(last_s: float, names: list[str]) -> None:
    """Below a second the load is unavailable, not calm: its ticks are too coarse."""
    busy = ticks(total=200, idle=60, own=90)(sample(1))
    reported = stability_of([sample(0), replace(busy, at_s=last_s)])
    assert [finding.name for finding in reported.findings] == names
    assert ("load of other programs" in reported.unavailable) is not bool(names)


WARNINGS = {
    "cpu_governor": (cpu(governors=("schedutil",)), "The CPU's clock is left to the governor"),
    "hot": (lambda calm: replace(calm, headroom_c=4.25), "A thermal zone came within 4.2 degrees"),
    "swapping": (
        late(lambda calm: replace(calm, swapped_pages=530)),
        "500 pages went to or came from swap.",
    ),
    "gpu_power_limit": (gpu(reasons=("power limit",)), "The GPU ran at its power limit"),
    "other_load": (
        ticks(total=200, idle=90, own=90),
        "Other programs took 10 % of the processors' time.",
    ),
    "cpu_clock": (late(cpu(mhz=(1500.0, 2000.0))), "The fastest processor ran at 2000 to 2200 MHz"),
}
"""What leaves the figures standing, by the name of its finding."""


@pytest.mark.parametrize("name", WARNINGS)
def test_a_risk_is_a_warning(name: str) -> None:
    """Beside the figures, which stand."""
    change, beginning = WARNINGS[name]
    reported = findings(change)
    assert list(reported) == [name]
    assert reported[name].severity is Severity.WARNING
    assert reported[name].sentence.startswith(beginning)
    assert stability(change).stable


def test_every_rule_is_shown_to_find() -> None:
    """No finding's name is left out above."""
    import inspect
    import re

    from edgeres.machine import stability

    named = set(re.findall(r'^ {8,12}"([a-z_]+)",$', inspect.getsource(stability), re.MULTILINE))
    assert named == {*UNSTABLE, *WARNINGS}


def test_the_cpu_clock_decides_where_the_cpu_is_measured() -> None:
    """Without a GPU a clock that falls makes the figures another machine's."""
    change = late(cpu(mhz=(1500.0, 2000.0)))
    reported = findings(lambda calm: replace(change(calm), gpu=None))
    assert reported["cpu_clock"].severity is Severity.UNSTABLE


@pytest.mark.parametrize(
    "change",
    [
        lambda calm: gpu(mhz=300.0)(calm) if calm.at_s in {0, SECONDS} else calm,
        late(gpu(mhz=300.0, reasons=("idle",))),
        gpu(mhz=None),
        late(gpu(mhz=1240.0)),
        late(cpu(mhz=(300.0, 2200.0))),
        late(lambda calm: replace(calm, over_current_events=None)),
        lambda calm: replace(calm, headroom_c=5.0),
        ticks(total=200, idle=100, own=91),
        ticks(total=0, idle=0, own=0),
        cpu(governors=("schedutil",), fixed=True),
    ],
    ids=[
        "gpu idle before and after",
        "gpu idle between two blocks",
        "gpu clock unavailable",
        "gpu clock within the limit",
        "one idle processor",
        "counter that goes away",
        "warm",
        "a few ticks of others",
        "no time passed",
        "jetson_clocks",
    ],
)
def test_what_disturbs_nothing_is_not_reported(change: Callable[[Sample], Sample]) -> None:
    """Clocks before and after the load, idle processors and small changes are calm."""
    assert stability(change).findings == ()


def test_what_is_unavailable_is_listed() -> None:
    """Silence of the machine never passes for calm."""
    dumb = [Sample(at_s=float(second), cpu=CpuState(), temperatures_c={}) for second in range(3)]
    unaware = stability_of(dumb, gpu_unavailable="no NVML")
    assert unaware.stable
    assert unaware.findings == ()
    assert unaware.unavailable == (
        "the CPU's governor",
        "the CPU's clocks",
        "load of other programs",
        "the cgroup's CPU quota",
        "memory pressure",
        "temperatures",
        "the temperature at which clocks are lowered",
        "no NVML",
    )


def test_the_json_form() -> None:
    """Verdict, findings and every sample; it survives text."""
    raw = json.loads(json.dumps(to_json(stability(late(gpu(mhz=900.0)))), allow_nan=False))
    assert (raw["stable"], raw["seconds"], len(raw["samples"])) == (False, 10.0, SECONDS + 1)
    assert raw["findings"][0]["name"] == "gpu_clock"
    assert raw["findings"][0]["severity"] == "unstable"
    assert raw["samples"][3]["gpu"]["mhz"] == 1300.0


def test_one_sample_shows_no_change() -> None:
    """It is refused, with how many there must be."""
    with pytest.raises(ValueError, match="1 sample cannot show a change; at least 2 are needed"):
        stability_of(CALM[:1])
