"""The gate on how much of an engine runs in the requested precision."""

from __future__ import annotations

import logging

import pytest

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.audit import Audit, AuditedNode, EngineLayer, Source
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import CoverageError
from edgeres.targets.coverage import audited_nodes, check_coverage, requested_precision

INT8 = BuildRequest(target="tensorrt", precision=Precision.INT8)


def audit(covered: int, missed: int) -> Audit:
    """Returns an audit of so many convolutions in INT8 and so many in FP16."""
    ran = [Precision.INT8] * covered + [Precision.FP16] * missed
    nodes = tuple(
        AuditedNode(name=f"c{i}", op_type="Conv", asked=Precision.INT8, ran=p, layer=f"k{i}")
        for i, p in enumerate(ran)
    )
    return Audit(source=Source.INSPECTOR, layers=(), nodes=nodes)


@pytest.mark.parametrize(
    ("covered", "missed", "required"), [(19, 1, 95), (20, 0, 100), (0, 5, 0), (0, 0, 100)]
)
def test_enough_passes(covered: int, missed: int, required: float) -> None:
    """The limit itself is enough; a network without such layers has nothing to miss."""
    check_coverage(audit(covered, missed), required)


def test_too_little_is_refused_with_every_figure() -> None:
    """Exit code 5, the share, the limit and the layers, the first eight of many by name."""
    with pytest.raises(CoverageError) as refused:
        check_coverage(audit(10, 10), 95)
    message = str(refused.value)
    assert refused.value.exit_code == 5
    assert message.startswith(
        "Precision coverage is 50.0 %, and --require-coverage is 95: 10 of 20 convolutions and "
        "additions do not run in the requested precision (engine inspector): "
        "Conv c10 (ran in fp16 in k10); Conv c11 (ran in fp16 in k11); "
    )
    assert "Conv c17 (ran in fp16 in k17); and 2 more. No engine was written." in message


def test_without_a_limit_it_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing falls back in silence."""
    with caplog.at_level(logging.WARNING, logger="edgeres"):
        check_coverage(audit(19, 1), None)
        check_coverage(audit(20, 0), None)
    (message,) = caplog.messages
    assert message.startswith("1 of 20 convolutions and additions do not run in the requested")
    assert message.endswith("Pass --require-coverage to refuse such an engine.")


@pytest.mark.parametrize(
    ("op_type", "lowered", "precision", "requested"),
    [
        ("Conv", Precision.INT8, Precision.INT8, Precision.INT8),
        ("Conv", Precision.FP16, Precision.INT8, Precision.INT8),
        ("Add", Precision.FP16, Precision.INT8, Precision.FP16),
        ("Conv", Precision.FP16, Precision.FP16, Precision.FP16),
    ],
)
def test_the_requested_precision_of_a_layer(
    op_type: str, lowered: Precision, precision: Precision, requested: Precision
) -> None:
    """INT8 means every convolution, although a lowering left one in float."""
    layer = LayerPrecision(name="a", op_type=op_type, precision=lowered)
    assert requested_precision(layer, precision) is requested


def test_only_convolutions_and_additions_count() -> None:
    """The classifier stays float by decision; a reformat computes nothing."""
    lowered = [
        LayerPrecision(name=name, op_type=kind, precision=Precision.INT8)
        for name, kind in (("c", "Conv"), ("a", "Add"), ("p", "MaxPool"), ("f", "Gemm"))
    ]
    engine_layers = [
        EngineLayer(name="k", kind="", precision=Precision.INT8, nodes=("c", "a", "p")),
        EngineLayer(name="r", kind="", precision=None, nodes=("c",), is_reformat=True),
    ]
    nodes = audited_nodes(lowered, engine_layers, Precision.INT8)
    assert [(node.name, node.ran, node.layer) for node in nodes] == [
        ("c", Precision.INT8, "k"),
        ("a", Precision.INT8, "k"),
    ]
