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
from edgeres.machine.boards import boards

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


def explain_measurement(
    network: EstimatedNetwork, request: EstimateRequest, measured_ms: float
) -> MeasuredLatency:
    """Returns a measurement beside its estimate, and which single changes fit it.

    Args:
        network: that was measured.
        request: of one precision, batch and timing, in which it was meant to run.
        measured_ms: latency of one batch.

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
    fits = () if within else tuple(_fits(network, request, own, measured_ms))
    return MeasuredLatency(
        measured_ms=measured_ms,
        estimate=own,
        within=within,
        fits=tuple(sorted(fits, key=lambda fit: _distance(fit.latency_ms, measured_ms))),
    )


def _distance(estimated_ms: float, measured_ms: float) -> float:
    return max(estimated_ms / measured_ms, measured_ms / estimated_ms)


def _fits(
    network: EstimatedNetwork, request: EstimateRequest, own: Estimate, measured_ms: float
) -> Iterator[Fit]:
    """Yields the changes whose interval holds the measurement."""
    for change, changed in _changes(request, own):
        (one,) = estimate_network(network, changed).estimates
        if one.low_ms <= measured_ms <= one.high_ms:
            yield Fit(
                change=change, latency_ms=one.latency_ms, low_ms=one.low_ms, high_ms=one.high_ms
            )


def _changes(request: EstimateRequest, own: Estimate) -> Iterator[tuple[str, EstimateRequest]]:
    """Yields every single change of power mode, timing and precision, with what it means."""
    board = request.board
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
