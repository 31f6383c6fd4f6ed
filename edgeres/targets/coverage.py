"""Whether the engine runs in the requested precisions: the gate behind `--require-coverage`."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.audit import AUDITED, Audit, AuditedNode, EngineLayer, describe_missed, first_few
from edgeres.core.precision import Precision
from edgeres.errors import CoverageError

_LISTED = 8
_LOG = logging.getLogger("edgeres.targets")


def requested_precision(layer: LayerPrecision, precision: Precision) -> Precision:
    """Returns the precision that was requested of a convolution or addition of an engine.

    Every convolution of an INT8 engine was requested in INT8, also one that the lowering left in
    float; an addition of a constant is no branch, and follows the lowering.
    """
    is_int8 = precision is Precision.INT8 and layer.op_type == "Conv"
    return Precision.INT8 if is_int8 else layer.precision


def audited_nodes(
    layers: Iterable[LayerPrecision], engine_layers: Iterable[EngineLayer], precision: Precision
) -> tuple[AuditedNode, ...]:
    """Returns the network's convolutions and additions with what the engine makes of them.

    Args:
        layers: the network's, as it was lowered.
        engine_layers: the engine's.
        precision: that was requested of the engine.
    """
    # A reformat carries the names of the layer that it feeds, and computes nothing.
    by_node = {
        node: layer for layer in engine_layers if not layer.is_reformat for node in layer.nodes
    }
    nodes = []
    for layer in layers:
        if layer.op_type in AUDITED:
            engine_layer = by_node.get(layer.name)
            nodes.append(
                AuditedNode(
                    name=layer.name,
                    op_type=layer.op_type,
                    asked=requested_precision(layer, precision),
                    ran=None if engine_layer is None else engine_layer.precision,
                    layer="" if engine_layer is None else engine_layer.name,
                )
            )
    return tuple(nodes)


def check_coverage(audit: Audit, required: float | None) -> None:
    """Checks that enough convolutions and additions run in the requested precision.

    Args:
        audit: what the engine runs.
        required: percentage; None only warns.

    Raises:
        CoverageError: fewer do; the message names them.
    """
    if not audit.missed:
        return
    listed = first_few([describe_missed(node) for node in audit.missed], _LISTED)
    fact = (
        f"{len(audit.missed)} of {len(audit.nodes)} convolutions and additions do not run in the "
        f"requested precision ({audit.source}): {listed}."
    )
    if required is None:
        _LOG.warning("%s Pass --require-coverage to refuse such an engine.", fact)
    elif audit.coverage < required:
        raise CoverageError(
            f"Precision coverage is {audit.coverage:.1f} %, and --require-coverage is "
            f"{required:g}: {fact} No engine was written. Build with a lower --require-coverage "
            "and look at `edgeres inspect`, or with another version of the target."
        )
