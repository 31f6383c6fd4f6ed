"""How a calibrated network becomes an integer one: what every lowering has, whichever its target."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from edgeres.core.artifacts import Fp16Layer, OnnxArtifact
from edgeres.core.contract import Contract
from edgeres.core.methods import Method, Recover
from edgeres.core.precision import Precision
from edgeres.core.table import CalibrationTable
from edgeres.core.tuning import MixedSearch
from edgeres.errors import CalibrationError
from edgeres.onnx_file import LoadedModel, LoweredNetwork
from edgeres.quantization.fp16.fit import fit_fp16
from edgeres.quantization.fp16.typed import to_fp16
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.placement import Placement, float_layers

_LOG = logging.getLogger("edgeres.quantization")


@dataclass(frozen=True, slots=True)
class Lowering:
    """One way in which a calibration table becomes an integer network."""

    name: str
    """As tables have it: the name of the first target that lowers so."""
    lower: Callable[[Graph, CalibrationTable, Method], onnx.ModelProto]
    """Returns a network that ONNX Runtime computes on the CPU as the target would."""
    place: Callable[[Graph], Placement]
    """Returns which inputs it quantizes."""
    has_cpu_kernels: bool
    """Whether ONNX Runtime computes it on integer kernels, so that its latency can be measured; else
    on rounded floats, of which a search makes integers (`Target.simulated`)."""
    has_unsigned_grid: bool
    """Whether a tensor that is never negative has all levels above zero."""
    precision: Precision = Precision.INT8
    """Of what it quantizes, INT8 or FP8. FP8 is computed in floats between the roundings."""


@dataclass(frozen=True, slots=True)
class Mix:
    """What an engine of mixed precision keeps in float."""

    kept: Mapping[str, str] = field(default_factory=dict)
    """Names of operators, each with the reason."""
    search: MixedSearch | None = None
    """What it was chosen from."""


ALL_INTEGER = Mix()
"""Keeps nothing: INT8 wherever there is a kernel for it."""


def check_table(
    table: CalibrationTable,
    model: OnnxArtifact,
    contract: Contract,
    lowering: Lowering,
    precision: Precision,
) -> None:
    """Checks that a table was made from this model, on images preprocessed as it wants them.

    Args:
        table: thresholds.
        model: the FP32 file.
        contract: its preprocessing.
        lowering: the way in which the table is to become a network.
        precision: of that network.

    Raises:
        CalibrationError: the table is another model's or another preprocessing's, or was imported
            and lacks what the lowering needs.
    """
    is_int8 = precision in {Precision.INT8, Precision.MIXED}
    if table.is_imported and (lowering.has_unsigned_grid or not is_int8):
        raise CalibrationError(
            f"The calibration table comes from TensorRT's cache {table.data.path}: it has the "
            "thresholds of signed INT8 alone, and serves --precision int8 of --target tensorrt, "
            f"tensorrt-rtx and onnx; requested is {precision} by the lowering for {lowering.name}. "
            "Build for one of these targets, or run calibrate with --data."
        )
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


def warn_of_unused_recovery(
    table: CalibrationTable, method: Method | None, lowering: Lowering
) -> None:
    """Warns where a table has a recovery that these thresholds, or this lowering, do not take."""
    recovery, wanted = table.recovery, method or table.method
    if recovery is None:
        return
    if wanted is not recovery.method:
        _LOG.warning(
            "the table's recovery (%s) was fitted to %s thresholds and is left out with %s; for "
            "one of its own: calibrate --method %s --recover %s",
            recovery.kind,
            recovery.method,
            wanted,
            wanted,
            recovery.kind,
        )
    elif lowering.name not in recovery.lowerings:
        _LOG.warning(
            "the table's recovery (%s) is for %s, and biases of the lowering for %s stay as "
            "trained; for corrections of its own: calibrate --precision %s --recover %s",
            recovery.kind,
            ", ".join(recovery.lowerings) or "no lowering",
            lowering.name,
            lowering.precision,
            Recover.BIAS,
        )


def float_network(
    model: LoadedModel,
    precision: Precision,
    table: CalibrationTable | None = None,
    *,
    typed: bool = True,
) -> LoweredNetwork:
    """Returns the network in FP32 as it is, or in FP16; every operator has a name of its own.

    Args:
        model: the FP32 file.
        precision: FP32 or FP16.
        table: shows what activations FP16 would not hold; None leaves them unchecked.
        typed: whether the network's types are FP16; False leaves them FP32, for a builder that
            chooses it itself.

    Raises:
        QuantizationError: FP16 cannot hold a value, or loses too much of a layer.
    """
    graph = view(model.proto)
    losses: tuple[Fp16Layer, ...] = ()
    layers = float_layers(graph, precision if typed else Precision.FP32)
    if precision is Precision.FP16:
        fitted = fit_fp16(graph, table, path=model.artifact.path)
        graph, losses = fitted.graph, fitted.layers
    half = precision is Precision.FP16 and typed
    return LoweredNetwork(
        model=to_fp16(graph.model) if half else graph.model,
        source=model.artifact,
        layers=layers,
        fp16=losses,
    )
