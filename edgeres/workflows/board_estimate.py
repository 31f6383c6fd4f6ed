"""A measured latency beside what is estimated for the board that it was measured on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median

from edgeres.core.bench_requests import Timing
from edgeres.estimation.arithmetic import Arithmetic
from edgeres.estimation.estimate import EstimatedNetwork, EstimateRequest, missing_units
from edgeres.estimation.measured import MeasuredOnBoard, explain_measurement
from edgeres.estimation.model import EstimatedTiming
from edgeres.machine import Machine, Sample
from edgeres.machine.board_names import board_of
from edgeres.machine.clocks import parse_power_modes
from edgeres.machine.sysfs import text_of
from edgeres.quantization.graph import view
from edgeres.workflows.bench_pair import BenchPair
from edgeres.workflows.measure import Measured

_TIMINGS: Mapping[Timing, EstimatedTiming] = {
    Timing.COMPUTE: EstimatedTiming.COMPUTE,
    Timing.COMPUTE_GRAPH: EstimatedTiming.COMPUTE,
    Timing.TRTEXEC_11: EstimatedTiming.COMPUTE,
    Timing.END_TO_END_GRAPH: EstimatedTiming.SINGLE_STREAM,
    Timing.END_TO_END: EstimatedTiming.LOOP,
    Timing.TRTEXEC_10: EstimatedTiming.LOOP,
}
"""What of a measurement the model knows: copies and launches are in some modes."""


def beside_estimate(
    pair: BenchPair, timing: Timing, measured: Measured, machine: Machine, root: Path = Path("/")
) -> MeasuredOnBoard | None:
    """Returns the engine's latency beside its estimate; None where there is nothing to estimate.

    That is on a CPU, on a board or GPU that is not known, of an engine in mixed precision or
    without its FP32 model.

    Args:
        pair: whose engine was timed.
        timing: what a sample covers.
        measured: on this machine.
        machine: this one.
        root: where the names of a Jetson's power modes are read.
    """
    latency, model, precision = measured.latency, pair.reference.model, str(pair.engine.precision)
    if latency is None or model is None or measured.stability is None:
        return None
    if not pair.engine.target.uses_gpu or precision not in map(str, Arithmetic):
        return None
    samples = measured.stability.samples
    states = [sample.gpu for sample in samples if sample.gpu is not None]
    limits = [state.max_mhz for state in states if state.max_mhz is not None]
    board = board_of(machine, _power_mode(samples, root), max(limits, default=None))
    arithmetic = Arithmetic(precision)
    graph = view(model.proto)
    if board is None or missing_units(board, arithmetic) or graph.input not in graph.shapes:
        return None
    artifact = model.artifact
    network = EstimatedNetwork(
        name=artifact.path.name, graph=graph, architecture=artifact.architecture
    )
    request = EstimateRequest(
        board=board,
        precisions=(arithmetic,),
        batches=(latency.batch_size,),
        timings=(_TIMINGS[timing],),
    )
    clocks = [state.mhz for state in states if state.mhz is not None]
    observed_mhz = median(clocks) if clocks else None
    return MeasuredOnBoard(
        board=board,
        observed_mhz=observed_mhz,
        measured=explain_measurement(network, request, latency.engine.p50_ms, observed_mhz),
    )


def _power_mode(samples: tuple[Sample, ...], root: Path) -> str | None:
    """Returns the name of a Jetson's power mode; None where its number or name is not known."""
    modes = parse_power_modes(text_of(root / "etc/nvpmodel.conf") or "")
    number = samples[-1].power_mode if samples else None
    return next((mode.name for mode in modes if str(mode.number) == number), None)
