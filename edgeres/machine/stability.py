"""Whether the machine was stable while something was measured: rules over samples of it.

Each rule takes the samples in order and yields a finding with its sentence. What a machine does
not report is listed as unavailable, so that silence never passes for stability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from edgeres.machine.gpu import THROTTLING
from edgeres.machine.sample import Sample
from edgeres.names import Name
from edgeres.plurals import counted, percent

CLOCK_CHANGE = 0.05
"""Fraction of its highest value by which a clock may fall within a measurement; the latency follows
it, and twice NVIDIA's own limit for a latency's variation counts as real. Source: trtexec warns
above a coefficient of variation of 2.5 %."""

OTHERS_WARNING, OTHERS_UNSTABLE = 0.05, 0.2
"""Fractions of all processors' time that other programs may take before a warning, and before the
measurement counts as shared. Chosen: a bench on two of four cores loses one at 0.25."""

STEAL_UNSTABLE = 0.02
"""Fraction of all processors' time that a hypervisor may give to other guests. Chosen: about the
variation of a latency that trtexec warns of."""

LEAST_TICKS_S = 1.0
"""Shortest time over which the kernel's ticks are compared: they are of 10 ms, and in a fifth of a
second on two processors a single one is 2.5 %. Source: proc(5), sysconf(_SC_CLK_TCK)."""

STALL_UNSTABLE = 0.01
"""Fraction of the time in which some task may wait for memory. Chosen: what a measurement's own
overhead may take of it."""

MIN_HEADROOM_C = 5.0
"""Degrees below a passive trip point from which on there is a warning. Chosen: a fan's hysteresis on
Jetson is 3 to 9 degrees. Source: L4T's nvfancontrol.conf."""


DISTURBANCES = frozenset(
    {
        "other_load",
        "steal",
        "cpu_quota",
        "cpu_throttled",
        "gpu_throttled",
        "thermal_throttled",
        "over_current",
    }
)
"""Findings that took processor time or clock from the measurement, by other load or throttling:
they come and go between two runs, which a comparison of the runs would take for the engine's."""


class Severity(Name):
    """What a finding means for the figures."""

    WARNING = "warning"
    """The figures stand, with this beside them."""
    UNSTABLE = "unstable"
    """The figures are not the machine's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityFinding:
    """One thing that disturbed, or could have."""

    name: str
    """Of the rule, such as `gpu_throttled`."""
    severity: Severity
    sentence: str
    """The fact with its values, and what to do."""


def disturbing(findings: Iterable[StabilityFinding]) -> tuple[StabilityFinding, ...]:
    """Returns the findings that make two runs incomparable."""
    return tuple(
        one for one in findings if one.severity is Severity.UNSTABLE and one.name in DISTURBANCES
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """Whether the machine was stable during one measurement."""

    json_keys = ("stable", "seconds", "findings", "unseen=unavailable", "samples")

    samples: tuple[Sample, ...]
    """In order; the first was taken before the measurement and the last after it."""
    findings: tuple[StabilityFinding, ...]
    unavailable: tuple[str, ...]
    """What this machine does not report, so that no rule could apply to it."""

    @property
    def stable(self) -> bool:
        """Whether no finding makes the figures another machine's."""
        return all(finding.severity is not Severity.UNSTABLE for finding in self.findings)

    @property
    def disturbances(self) -> tuple[StabilityFinding, ...]:
        """Other load and throttling that make two runs incomparable."""
        return disturbing(self.findings)

    @property
    def seconds(self) -> float:
        """Time from the first sample to the last."""
        return _seconds(self.samples)


def stability_of(samples: Sequence[Sample], *, gpu_unavailable: str | None = None) -> Stability:
    """Returns what the samples of one measurement show.

    Args:
        samples: at least two: before, any number during, and after.
        gpu_unavailable: a sentence on what the GPU does not report.

    Raises:
        ValueError: there are fewer than two samples.
    """
    if len(samples) < 2:
        raise ValueError(
            f"{counted(len(samples), 'sample')} cannot show a change; at least 2 are needed"
        )
    # What the last sample has decides: a source that went away midway cannot vouch for the rest.
    last, findings = samples[-1], tuple(f for rule in _RULES for f in rule(samples))
    available = {
        "the CPU's governor": last.cpu.governors,
        "the CPU's clocks": last.cpu.mhz,
        "load of other programs": last.cpu.ticks and _seconds(samples) >= LEAST_TICKS_S,
        "the cgroup's CPU quota": last.cpu.throttled_periods is not None,
        "memory pressure": last.memory_stall_us is not None,
        "temperatures": last.temperatures_c,
        "the temperature at which clocks are lowered": last.headroom_c is not None,
    }
    missing = tuple(name for name, value in available.items() if not value)
    unavailable = (*missing, *((gpu_unavailable,) if gpu_unavailable else ()))
    return Stability(samples=tuple(samples), findings=findings, unavailable=unavailable)


def _warning(name: str, sentence: str) -> StabilityFinding:
    return StabilityFinding(name=name, severity=Severity.WARNING, sentence=sentence)


def _unstable(name: str, sentence: str) -> StabilityFinding:
    return StabilityFinding(name=name, severity=Severity.UNSTABLE, sentence=sentence)


def _seconds(samples: Sequence[Sample]) -> float:
    return samples[-1].at_s - samples[0].at_s


def _growth(samples: Sequence[Sample], counter: Callable[[Sample], int | None]) -> int:
    """Returns by how much a counter grew; 0 where it is not reported."""
    values = [value for sample in samples if (value := counter(sample)) is not None]
    return values[-1] - values[0] if values else 0


def _changed(clocks: Sequence[float]) -> bool:
    return bool(clocks) and min(clocks) < (1 - CLOCK_CHANGE) * max(clocks)


def _gpu_rules(samples: Sequence[Sample]) -> Iterator[StabilityFinding]:
    reasons = {reason for s in samples if s.gpu is not None for reason in s.gpu.reasons}
    if throttled := sorted(reasons & THROTTLING):
        yield _unstable(
            "gpu_throttled",
            f"The GPU slowed itself down ({'; '.join(throttled)}). Cool it or check its supply, "
            "and measure again.",
        )
    if "power limit" in reasons:
        yield _warning(
            "gpu_power_limit",
            "The GPU ran at its power limit, which its clock follows. Fix a clock that it can "
            "hold: sudo nvidia-smi --lock-gpu-clocks=MHZ.",
        )
    # The first and the last sample are taken before and after the load, where an idle GPU lowers
    # its clock on purpose; so it does between two blocks.
    working = [s.gpu for s in samples[1:-1] if s.gpu is not None and "idle" not in s.gpu.reasons]
    clocks = [gpu.mhz for gpu in working if gpu.mhz]
    if _changed(clocks):
        yield _unstable(
            "gpu_clock",
            f"The GPU ran at {min(clocks):.0f} to {max(clocks):.0f} MHz while measuring. Fix its "
            "clock: sudo nvidia-smi --lock-gpu-clocks=MHZ (on a Jetson: sudo jetson_clocks).",
        )


def _board_rules(samples: Sequence[Sample]) -> Iterator[StabilityFinding]:
    modes = list(dict.fromkeys(s.power_mode for s in samples if s.power_mode is not None))
    if len(modes) > 1:
        yield _unstable(
            "power_mode",
            f"The board's power mode changed from {' to '.join(modes)}. Set it once, with sudo "
            "nvpmodel -m MODE, and measure again.",
        )
    events = _growth(samples, lambda sample: sample.over_current_events)
    if events > 0:
        yield _unstable(
            "over_current",
            f"The board lowered its clocks {events} times because it drew too much current. Use "
            "the supply that the board requires, or a lower power mode: sudo nvpmodel -m MODE.",
        )
    headroom = [sample.headroom_c for sample in samples if sample.headroom_c is not None]
    slowed = sorted({name for sample in samples for name in sample.slowed_by})
    if slowed:
        yield _unstable(
            "thermal_throttled",
            f"The kernel lowered clocks against heat ({', '.join(slowed)}). Cool the machine, or "
            "choose a lower power mode, and measure again.",
        )
    elif headroom and min(headroom) < MIN_HEADROOM_C:
        yield _warning(
            "hot",
            f"A thermal zone came within {min(headroom):.1f} degrees of the temperature at which "
            "the kernel lowers clocks. Cool the machine, or measure for a shorter time.",
        )


def _cpu_rules(samples: Sequence[Sample]) -> Iterator[StabilityFinding]:
    events = _growth(samples, lambda sample: sample.cpu.throttle_events)
    if events > 0:
        yield _unstable(
            "cpu_throttled",
            f"The processor slowed down {events} times because of its temperature. Cool the "
            "machine and measure again.",
        )
    # An idle processor lowers its clock on purpose; the fastest one is where the work is.
    clocks = [max(sample.cpu.mhz) for sample in samples[1:-1] if sample.cpu.mhz]
    if _changed(clocks):
        on_gpu = samples[0].gpu is not None
        yield (_warning if on_gpu else _unstable)(
            "cpu_clock",
            f"The fastest processor ran at {min(clocks):.0f} to {max(clocks):.0f} MHz while "
            "measuring. Fix the clocks: sudo cpupower frequency-set -g performance (on a Jetson: "
            "sudo jetson_clocks), or cool the machine.",
        )
    periods = _growth(samples, lambda sample: sample.cpu.throttled_periods)
    if periods > 0:
        yield _unstable(
            "cpu_quota",
            f"The container's CPU quota stopped this program in {periods} scheduling periods. "
            "Raise the quota, or measure outside of the container.",
        )
    ticks = [sample.cpu.ticks for sample in samples if sample.cpu.ticks is not None]
    if not ticks or _seconds(samples) < LEAST_TICKS_S or ticks[-1].total <= ticks[0].total:
        return
    spent = ticks[-1].since(ticks[0])
    if spent.steal > STEAL_UNSTABLE * spent.total:
        yield _unstable(
            "steal",
            f"The hypervisor gave {percent(spent.steal / spent.total)} of the processors' time to other "
            "guests. Measure on a machine of its own.",
        )
    others = (spent.total - spent.idle - spent.steal - spent.own) / spent.total
    if others > OTHERS_WARNING:
        yield (_unstable if others > OTHERS_UNSTABLE else _warning)(
            "other_load",
            f"Other programs took {percent(others, 0)} of the processors' time. Stop them and measure "
            "again.",
        )


def _memory_rules(samples: Sequence[Sample]) -> Iterator[StabilityFinding]:
    stalled_s = _growth(samples, lambda sample: sample.memory_stall_us) / 1e6
    seconds = _seconds(samples)
    if stalled_s > STALL_UNSTABLE * seconds:
        yield _unstable(
            "memory_pressure",
            f"Programs waited for memory {stalled_s:.2f} s of {seconds:.2f} s. Close others, or "
            "take smaller batches.",
        )
    if pages := _growth(samples, lambda sample: sample.swapped_pages):
        yield _warning(
            "swapping",
            f"{pages} pages went to or came from swap. Close other programs, so that all fits "
            "into memory.",
        )


def _governor_rule(samples: Sequence[Sample]) -> Iterator[StabilityFinding]:
    # Where jetson_clocks left a single clock, the governor's name means nothing.
    free = [sample.cpu for sample in samples if not sample.cpu.fixed]
    names = {name for cpu in free for name in cpu.governors}
    if names - {"performance"}:
        yield _warning(
            "cpu_governor",
            f"The CPU's clock is left to the governor {', '.join(sorted(names))}, which changes "
            "it with the load. Set performance: sudo cpupower frequency-set -g performance (on a "
            "Jetson: sudo jetson_clocks).",
        )


_RULES = (_gpu_rules, _board_rules, _cpu_rules, _memory_rules, _governor_rule)
"""In the order in which their findings are listed."""
