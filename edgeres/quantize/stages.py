"""The stages: model and images to a table, model and table to a network for a builder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from edgeres import __version__
from edgeres.artifacts import CalibrationTable, DataLineage, OnnxArtifact, TensorRange
from edgeres.contract import Contract
from edgeres.errors import CalibrationError
from edgeres.model_file import Network, load_model
from edgeres.quantize.cpu import lower_for_cpu
from edgeres.quantize.fp16 import to_fp16
from edgeres.quantize.graph import Graph, view
from edgeres.quantize.methods import Distribution, thresholds
from edgeres.quantize.observe import ImageBatch, observe
from edgeres.quantize.placement import (
    calibrated_tensors,
    float_layers,
    place_for_cpu,
    place_for_tensorrt,
)
from edgeres.quantize.recovery.apply import recovered
from edgeres.quantize.tensorrt import lower_for_tensorrt
from edgeres.spec import CalibrationConfig, Method, Precision


class HashedBatch(ImageBatch, Protocol):
    """A batch whose images can be recognised again."""

    @property
    def hashes(self) -> tuple[str, ...]:
        """A hash of each image's decoded pixels."""
        ...


def calibrate(
    model: OnnxArtifact,
    batches: Iterable[HashedBatch],
    config: CalibrationConfig,
    *,
    contract: Contract,
    data: str,
) -> CalibrationTable:
    """Returns the thresholds of every activation by every method, from one pass over `batches`.

    Args:
        model: the FP32 file.
        batches: images preprocessed by `contract`.
        config: method, percentile and what the images were drawn by.
        contract: preprocessing of the batches.
        data: where the images come from, for the record.

    Raises:
        CalibrationError: no images, an activation that is NaN or infinite, or a network with
            nothing to quantize.
        QuantizationError: the model's opset is too old.
        RunnerError: ONNX Runtime refused the model.
    """
    graph = view(load_model(model.path))
    tensors = calibrated_tensors(graph)
    if not tensors:
        raise CalibrationError(
            f"{model.path} has no convolution with constant weights: there is nothing to quantize."
        )
    hashes: list[str] = []
    distributions = observe(graph, tensors, _recorded(batches, hashes))
    return CalibrationTable(
        model_sha256=model.sha256,
        data=DataLineage.of(data, hashes),
        contract=contract,
        method=config.method,
        percentile=config.percentile,
        samples=len(hashes),
        seed=config.seed,
        edgeres_version=__version__,
        tensors={
            name: range_of(graph, name, seen, config.percentile)
            for name, seen in distributions.items()
        },
    )


def check_table(table: CalibrationTable, model: OnnxArtifact, contract: Contract) -> None:
    """Checks that a table was made from this model, on images preprocessed as it wants them.

    Raises:
        CalibrationError: the table is another model's or another preprocessing's.
    """
    if table.model_sha256 != model.sha256:
        raise CalibrationError(
            f"The calibration table belongs to another model: it was made from sha256 "
            f"{table.model_sha256[:12]}, {model.path} is {model.sha256[:12]}. "
            "Run calibrate on this model."
        )
    if table.contract != contract:
        raise CalibrationError(
            f"The calibration table was made with another preprocessing: {table.contract}, "
            f"the model's is {contract}. Run calibrate again."
        )


def quantize_for_cpu(
    model: OnnxArtifact, table: CalibrationTable, method: Method | None = None
) -> Network:
    """Returns the INT8 network for ONNX Runtime's CPU kernels; `method` None takes the table's.

    Raises:
        ArtifactError: the table lacks a tensor.
        CalibrationError: its recovery is another method's.
    """
    graph = view(load_model(model.path))
    placement = place_for_cpu(graph)
    return Network(
        model=lower_for_cpu(recovered(graph, table, placement.weighted, method), table, method),
        source=model,
        layers=placement.layers,
        table=table,
        method=method or table.method,
    )


def quantize_for_tensorrt(
    model: OnnxArtifact,
    table: CalibrationTable,
    method: Method | None = None,
    *,
    floats: Precision = Precision.FP32,
) -> Network:
    """Returns the INT8 network with TensorRT's placement.

    Args:
        model: the FP32 file.
        table: its thresholds.
        method: which of them; None takes the table's.
        floats: precision of what is not INT8, FP32 or FP16. ONNX Runtime runs the FP32 form.

    Raises:
        ArtifactError: the table lacks a tensor.
        CalibrationError: its recovery is another method's.
        QuantizationError: a value overflows FP16.
    """
    graph = view(load_model(model.path))
    placement = place_for_tensorrt(graph)
    graph = recovered(graph, table, placement.weighted, method)
    half = floats is Precision.FP16
    lowered = lower_for_tensorrt(graph, placement, table, method, fp16_scales=half)
    return Network(
        model=to_fp16(lowered) if half else lowered,
        source=model,
        layers=placement.with_floats(floats).layers,
        table=table,
        method=method or table.method,
    )


def float_network(model: OnnxArtifact, precision: Precision) -> Network:
    """Returns the network in FP32 as it is, or typed FP16.

    Raises:
        QuantizationError: a value overflows FP16.
    """
    proto = load_model(model.path)
    half = precision is Precision.FP16
    return Network(
        model=to_fp16(proto) if half else proto,
        source=model,
        layers=float_layers(view(proto), precision),
    )


def _recorded(batches: Iterable[HashedBatch], hashes: list[str]) -> Iterator[HashedBatch]:
    for batch in batches:
        hashes.extend(batch.hashes)
        yield batch


def range_of(graph: Graph, name: str, seen: Distribution, percentile: float) -> TensorRange:
    """Returns the thresholds of one activation by every method."""
    signed = not graph.is_non_negative(name)
    return TensorRange(
        amax=seen.amax,
        signed=signed,
        thresholds=thresholds(seen, signed=signed, percentile=percentile),
    )
