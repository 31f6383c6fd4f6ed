"""What quantizing each residual block, each layer and each kind of tensor does to the logits."""

from __future__ import annotations

from collections.abc import Iterator

from edgeres.calibration.quality import LogitEvaluator
from edgeres.core.table import CalibrationTable
from edgeres.core.tuning import ErrorSource, Sensitivity, UnitSensitivity
from edgeres.progress import Progress
from edgeres.quantization.graph import Graph
from edgeres.quantization.qdq.exact_pixels import exact_pixels
from edgeres.quantization.qdq.lowering import lower_for_tensorrt
from edgeres.quantization.qdq.sources import error_sources
from edgeres.quantization.recovered import with_weights
from edgeres.quantization.units import blocks, layers, quantizable
from edgeres.targets.base import simulated_target

_KEPT = "kept in float to measure the rest"


def measure_sensitivity(
    graph: Graph, table: CalibrationTable, evaluator: LogitEvaluator, progress: Progress
) -> Sensitivity:
    """Returns the quality of the logits with one unit or kind quantized, and with all but one unit.

    In TensorRT's placement, whose order of sensitivity the CPU's lowering shares: both round
    the same tensors, the CPU's the main branch's last one too.

    Args:
        graph: the FP32 model.
        table: its thresholds; those of its own method are used.
        evaluator: of images held out of the ranges.
        progress: receives each unit that was measured.
    """
    lowering = simulated_target().lowering()
    everything = quantizable(graph)
    # A block of one layer would be measured twice.
    units = [*blocks(graph), *(u for u in layers(graph) if u not in blocks(graph))]

    def quality(quantized: frozenset[str]) -> float:
        kept = graph.keeping(dict.fromkeys(everything - quantized, _KEPT))
        return evaluator.quality(lowering, kept, table, table.method)

    measured = []
    for done, unit in enumerate(units, start=1):
        measured.append(
            UnitSensitivity(
                unit=unit.name,
                kind=unit.kind,
                nodes=tuple(sorted(unit.nodes)),
                alone_db=quality(unit.nodes),
                without_db=quality(everything - unit.nodes),
            )
        )
        progress("Measuring sensitivity", done, len(units), unit.name)
    return Sensitivity(
        images=evaluator.images,
        method=table.method,
        all_db=quality(everything),
        units=tuple(measured),
        sources=tuple(_error_sources(graph, table, evaluator)),
    )


def _error_sources(
    graph: Graph, table: CalibrationTable, evaluator: LogitEvaluator
) -> Iterator[ErrorSource]:
    """Yields each kind of tensors that is rounded, with the quality of the logits by it alone."""
    pixels = exact_pixels(graph, table.contract)
    placement = simulated_target().lowering().place(graph)
    for name, alone in error_sources(graph, placement, pixels).items():
        weighted = with_weights(graph, table.weight_method, alone)
        # In float: integer kernels would round the operands that are to stay exact.
        model = lower_for_tensorrt(weighted, alone, table)
        activations = {graph.root(edge.tensor) for edge in alone.edges}
        yield ErrorSource(
            name=name,
            tensors=len(activations) or len(alone.weighted),
            alone_db=float(evaluator.qualities_in_float(model, graph).mean()),
        )
