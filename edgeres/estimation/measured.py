"""A measured latency beside its estimate, and what would explain the difference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgeres.errors import ConfigError
from edgeres.estimation.arithmetic import Arithmetic
from edgeres.estimation.estimate import (
    Estimate,
    EstimatedNetwork,
    EstimateRequest,
    available,
    estimate_network,
)
from edgeres.estimation.model import EstimatedTiming
from edgeres.machine.boards import Board, boards
from edgeres.machine.stability import CLOCK_CHANGE

_TIMINGS = {
    EstimatedTiming.LOOP: "kernels launched one by one: no CUDA graph, the host's enqueue decides",
    EstimatedTiming.SINGLE_STREAM: "copies and the host's part are in the figure",
    EstimatedTiming.COMPUTE: "the network alone: no copies, CUDA graph",
    EstimatedTiming.OFFLINE: "batches of several streams overlap",
}
"""What a figure of another timing would cover."""

_WIDER = (Arithmetic.FP8, Arithmetic.INT8, Arithmetic.FP16, Arithmetic.FP32)
"""From narrow to wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One thing changed, so that the estimate's interval holds the measurement."""

    change: str
    latency_ms: float
    low_ms: float
    high_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLatency:
    """A measured latency and its estimate."""

    measured_ms: float
    estimate: Estimate
    within: bool
    """Whether the 80 % interval holds it."""
    fits: tuple[Fit, ...]
    """What explains it, the closest first; empty where the interval holds it."""

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """The measurement beside the estimate, and what fits it: names with sentences."""
        own, place = self.estimate, "within" if self.within else "outside"
        fits = [
            ("would fit", f"{fit.change} ({_ms(fit.low_ms)} to {_ms(fit.high_ms)} ms)")
            for fit in self.fits
        ]
        if not self.within and not fits:
            fits = [
                (
                    "would fit",
                    "no other power mode, timing or precision: look at clocks and other load",
                )
            ]
        return (
            (
                "measured",
                f"{_ms(self.measured_ms)} ms, {self.measured_ms / own.latency_ms:.2f} times the "
                f"estimate, {place} its interval",
            ),
            *fits,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredOnBoard:
    """A measurement of bench beside the estimate for the board that it ran on."""

    json_keys = (
        "board=board.name",
        "power_mode=board.power_mode",
        "sms=board.sms",
        "gpu_mhz=board.gpu_mhz",
        "observed_mhz",
        "measured.*",
    )

    board: Board
    observed_mhz: float | None
    """Median clock of the GPU while it was timed; None where it does not report one."""
    measured: MeasuredLatency

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Board and estimate, then what `MeasuredLatency` has, in sentences."""
        own, board = self.measured.estimate, self.board
        clock = "" if self.observed_mhz is None else f", observed at {self.observed_mhz:.0f} MHz"
        return (
            (
                "estimate",
                f"{_ms(own.latency_ms)} ms, 80 % interval {_ms(own.low_ms)} to "
                f"{_ms(own.high_ms)} ms, {own.precision} {own.timing} on {board.name} in "
                f"{board.power_mode}: {board.sms} SMs at {board.gpu_mhz:g} MHz{clock}"
                + ("; an extrapolation" if own.extrapolated else ""),
            ),
            *self.measured.facts,
        )


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def explain_measurement(
    network: EstimatedNetwork,
    request: EstimateRequest,
    measured_ms: float,
    observed_mhz: float | None = None,
) -> MeasuredLatency:
    """Returns a measurement beside its estimate, and which single changes fit it.

    Args:
        network: that was measured.
        request: of one precision, batch and timing, in which it was meant to run.
        measured_ms: latency of one batch.
        observed_mhz: clock of the GPU meanwhile; None where it is not known.

    Raises:
        ConfigError: the request is for several estimates, or the latency is not positive.
    """
    estimates = estimate_network(network, request).estimates
    if len(estimates) != 1:
        raise ConfigError(
            f"A measurement is compared with one estimate, and {len(estimates)} were requested. "
            "Pass one --precision, one --batch and one --timing."
        )
    if not 0 < measured_ms < float("inf"):
        raise ConfigError(f"--measured is {measured_ms:g}; expected a latency in ms.")
    (own,) = estimates
    within = own.low_ms <= measured_ms <= own.high_ms
    fits = () if within else tuple(_fits(network, request, own, measured_ms, observed_mhz))
    return MeasuredLatency(
        measured_ms=measured_ms,
        estimate=own,
        within=within,
        fits=tuple(sorted(fits, key=lambda fit: _distance(fit.latency_ms, measured_ms))),
    )


def _distance(estimated_ms: float, measured_ms: float) -> float:
    return max(estimated_ms / measured_ms, measured_ms / estimated_ms)


def _fits(
    network: EstimatedNetwork,
    request: EstimateRequest,
    own: Estimate,
    measured_ms: float,
    observed_mhz: float | None,
) -> Iterator[Fit]:
    """Yields the changes whose interval holds the measurement."""
    for change, changed in _changes(request, own, observed_mhz):
        (one,) = estimate_network(network, changed).estimates
        if one.low_ms <= measured_ms <= one.high_ms:
            yield Fit(
                change=change, latency_ms=one.latency_ms, low_ms=one.low_ms, high_ms=one.high_ms
            )


def _changes(
    request: EstimateRequest, own: Estimate, observed_mhz: float | None
) -> Iterator[tuple[str, EstimateRequest]]:
    """Yields every single change of clock, power mode, timing and precision, with what it means."""
    board = request.board
    if observed_mhz and abs(observed_mhz / board.gpu_mhz - 1) > CLOCK_CHANGE:
        words = f"the clock that was observed: {observed_mhz:.0f} MHz instead of {board.gpu_mhz:g}"
        yield words, replace(request, board=replace(board, gpu_mhz=observed_mhz))
    for mode in boards()[board.name]:
        same = (mode.sms, mode.gpu_mhz, mode.memory_gbps)
        if same != (board.sms, board.gpu_mhz, board.memory_gbps):
            words = f"power mode {mode.power_mode}: {mode.sms} SMs at {mode.gpu_mhz:g} MHz"
            yield words, replace(request, board=mode)
    for timing, words in _TIMINGS.items():
        if timing is not own.timing:
            yield words, replace(request, timings=(timing,))
    wider = _WIDER[_WIDER.index(own.precision) + 1 :]
    for precision in (each for each in wider if each in available(board)):
        words = f"layers in float: as slow as an {precision} engine"
        yield words, replace(request, precisions=(precision,))
