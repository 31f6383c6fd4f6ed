"""Whether the engine runs what was asked: the gate behind `--require-coverage`."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.audit import AUDITED, Audit, AuditedNode, EngineLayer, describe_missed
from edgeres.core.precision import Precision
from edgeres.errors import CoverageError

_LISTED = 8
_LOG = logging.getLogger("edgeres.targets")


def asked_of(layer: LayerPrecision, precision: Precision) -> Precision:
    """Returns what a convolution or addition of an engine of that precision was asked to run in.

    Every convolution of an INT8 engine was asked for INT8, also one that the lowering left in
    float; an addition of a constant is no branch, and follows the lowering.
    """
    is_int8 = precision is Precision.INT8 and layer.op_type == "Conv"
    return Precision.INT8 if is_int8 else layer.precision


def audited_nodes(
    layers: Iterable[LayerPrecision], found: Iterable[EngineLayer], precision: Precision
) -> tuple[AuditedNode, ...]:
    """Returns the network's convolutions and additions with what the engine makes of them.

    Args:
        layers: the network's, as it was lowered.
        found: the engine's.
        precision: that the engine was asked for in.
    """
    by_node = {node: layer for layer in found if not layer.is_reformat for node in layer.nodes}
    return tuple(
        _audited(layer, by_node.get(layer.name), precision)
        for layer in layers
        if layer.op_type in AUDITED
    )


def _audited(layer: LayerPrecision, found: EngineLayer | None, precision: Precision) -> AuditedNode:
    return AuditedNode(
        name=layer.name,
        op_type=layer.op_type,
        asked=asked_of(layer, precision),
        ran=None if found is None else found.precision,
        layer="" if found is None else found.name,
    )


def check_coverage(audit: Audit, required: float | None) -> None:
    """Checks that enough convolutions and additions run in the precision asked for.

    Args:
        audit: what the engine runs.
        required: percentage; None only warns.

    Raises:
        CoverageError: fewer do; the message names them.
    """
    if not audit.missed:
        return
    said = (
        f"{len(audit.missed)} of {len(audit.nodes)} convolutions and additions do not run in the "
        f"precision asked for ({audit.source}): {_listed(audit)}."
    )
    if required is None:
        _LOG.warning("%s Pass --require-coverage to refuse such an engine.", said)
    elif audit.coverage < required:
        raise CoverageError(
            f"Precision coverage is {audit.coverage:.1f} %, and --require-coverage is "
            f"{required:g}: {said} No engine was written. Build with a lower --require-coverage "
            "and look at `edgeres inspect`, or with another version of the target."
        )


def _listed(audit: Audit) -> str:
    first = "; ".join(describe_missed(node) for node in audit.missed[:_LISTED])
    rest = len(audit.missed) - _LISTED
    return f"{first}; and {rest} more" if rest > 0 else first
