"""The `onnxruntime` target: an ONNX file whose graph ONNX Runtime's CPU kernels run as meant.

What counts is the graph after ONNX Runtime's own fusions, so it is read back and compared with
the lowering: a layer that was meant to be integer and runs in float is an error.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import onnx

from edgeres.core.artifacts import FOREIGN, EngineArtifact, LayerPrecision
from edgeres.core.audit import Audit, EngineLayer, Source
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import ArtifactError, CoverageError
from edgeres.input_files import MODEL, read_bytes
from edgeres.onnx_file import LoweredNetwork
from edgeres.session import open_session
from edgeres.targets.coverage import audited_nodes, check_coverage
from edgeres.targets.engine_files import Built, save_engine
from edgeres.targets.onnxruntime.foreign import with_names

_FLOAT_FORMS = {
    "Conv": {"Conv", "FusedConv", "NhwcFusedConv"},
    "Add": {"Add"},
    "Gemm": {"Gemm", "FusedGemm"},
    "MatMul": {"MatMul", "FusedMatMul"},
    "GlobalAveragePool": {"GlobalAveragePool"},
}
"""Operators of ONNX Runtime that compute a layer in float, in the standard or in its own domain."""

_INTEGER_FORMS = {
    "QLinearConv": "Conv",
    "QLinearAdd": "Add",
    "QGemm": "Gemm",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "MatMulInteger": "GlobalAveragePool",
}
"""ONNX Runtime's integer operators, and the operator that each is the integer form of. Only the
sum of a global mean is lowered to MatMulInteger."""

_KINDS = {
    **{form: kind for kind, forms in _FLOAT_FORMS.items() for form in forms},
    **_INTEGER_FORMS,
}
_REFORMATS = frozenset(
    {"Transpose", "ReorderInput", "ReorderOutput", "QuantizeLinear", "DequantizeLinear"}
)
_RENAMED = re.compile(r"(_token_\d+|_nchwc)+$")
"""What ONNX Runtime's fusions put behind an operator's name."""

_Operator = tuple[str, str]
"""Name and kind of an operator of the lowered network."""


def build(
    network: LoweredNetwork, config: BuildRequest, contract: Contract, *, output: Path
) -> EngineArtifact:
    """Writes the network as an ONNX file, after ONNX Runtime has shown how it runs it.

    Raises:
        CoverageError: ONNX Runtime runs layers in float that were to be integer.
        RunnerError: ONNX Runtime refused the network.
        ArtifactError: the files cannot be written.
    """
    serialized = network.model.SerializeToString()
    optimized = optimized_model(serialized)
    audit = audit_of_graph(optimized, network.layers, config.precision)
    if config.required_coverage is not None:
        check_coverage(audit, config.required_coverage)
    elif config.is_quantized:
        check_integer(network, optimized)
    versions = {name: version(name) for name in ("onnx", "onnxruntime")}
    built = Built(engine=serialized, versions=versions, audit=audit)
    return save_engine(built, network, config, contract, output)


def audit_engine(engine: EngineArtifact) -> Audit:
    """Returns what this machine's ONNX Runtime makes of an engine that was built before.

    Raises:
        RunnerError: ONNX Runtime refused it.
        ArtifactError: its manifest has no precision.
    """
    manifest = engine.manifest
    if manifest.precision is None:
        raise ArtifactError(
            f"{engine.path} cannot be audited: the requested precision is not known. Build it "
            "again with build-engine."
        )
    if FOREIGN in manifest.flags:
        return audit_model(engine.content, manifest.layers, manifest.precision)
    optimized = optimized_model(engine.content)
    return audit_of_graph(optimized, manifest.layers, manifest.precision)


def audit_model(
    serialized: bytes, layers: tuple[LayerPrecision, ...], requested: Precision
) -> Audit:
    """Returns what this machine's ONNX Runtime makes of a serialised model of another tool.

    Raises:
        RunnerError: ONNX Runtime refused it.
    """
    model = onnx.load_model_from_string(serialized)
    if (named := with_names(model)) is not model:
        serialized = named.SerializeToString()
    return audit_of_graph(optimized_model(serialized), layers, requested)


def optimized_model(serialized: bytes) -> onnx.ModelProto:
    """Returns the graph that ONNX Runtime really runs on this machine."""
    with tempfile.TemporaryDirectory(prefix="edgeres-") as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(serialized, optimized=path)
        return onnx.load_model_from_string(read_bytes(path, MODEL))


def audit_of_graph(
    optimized: onnx.ModelProto, layers: tuple[LayerPrecision, ...], requested: Precision
) -> Audit:
    """Returns the audit of the graph that ONNX Runtime really runs.

    Args:
        optimized: the graph after its fusions.
        layers: the network's, as it was lowered.
        requested: the engine's precision.
    """
    joints = {layer.joined for layer in layers}
    computed: dict[_Operator, list[str]] = {}
    for layer in layers:
        name = layer.joined or layer.name
        # An addition that is computed with its two convolutions is a Conv in the engine.
        kind = "Conv" if name in joints else layer.op_type
        computed.setdefault((name, kind), []).append(layer.name)
    engine_layers = []
    for node in optimized.graph.node:
        precision = Precision.FP32 if node.op_type in _KINDS else None
        if is_integer(node.op_type):
            precision = Precision.INT8
        operator = operator_name(node.name), _KINDS.get(node.op_type, "")
        engine_layers.append(
            EngineLayer(
                name=node.name,
                kind=node.op_type,
                precision=precision,
                nodes=tuple(computed.get(operator, ())),
                is_reformat=node.op_type in _REFORMATS,
            )
        )
    # Where the graph has as many integer forms of a kind as there are operators of it, each of
    # them is integer, whatever name a fusion gave it.
    expected = Counter(kind for _, kind in computed)
    integer = Counter(_INTEGER_FORMS.get(node.op_type) for node in optimized.graph.node)
    all_integer = {kind for kind, count in expected.items() if integer[kind] >= count}
    kinds = {name: kind for (_, kind), names in computed.items() for name in names}
    nodes = tuple(
        replace(
            node,
            ran=Precision.INT8 if kinds[node.name] in all_integer else node.ran or Precision.FP32,
        )
        for node in audited_nodes(layers, tuple(engine_layers), requested)
    )
    return Audit(source=Source.ONNXRUNTIME, layers=tuple(engine_layers), nodes=nodes)


def is_integer(kind: str) -> bool:
    """Returns whether an operator of ONNX Runtime computes in integers."""
    return kind.startswith(("QLinear", "QGemm", "MatMulInteger", "ConvInteger"))


def is_reformat(kind: str) -> bool:
    """Returns whether an operator of ONNX Runtime only changes layout or type."""
    return kind in _REFORMATS


def operator_name(name: str) -> str:
    """Returns an operator's name without what ONNX Runtime's fusions put behind it."""
    return _RENAMED.sub("", name)


def operator_type(kind: str) -> str:
    """Returns the operator that one of ONNX Runtime's is a form of."""
    return _KINDS.get(kind, kind)


def check_integer(network: LoweredNetwork, optimized: onnx.ModelProto) -> None:
    """Checks that no more layers of any kind run in float than the lowering left there.

    Raises:
        CoverageError: some do; the message counts them by kind.
    """
    # By kind, not by name: the fusions rename.
    floats = Counter(
        kind
        for node in optimized.graph.node
        for kind, forms in _FLOAT_FORMS.items()
        if node.op_type in forms
    )
    expected = Counter(
        layer.op_type for layer in network.layers if layer.precision is not Precision.INT8
    )
    excess = {
        kind: floats[kind] - expected[kind] for kind in floats if floats[kind] > expected[kind]
    }
    if excess:
        listed = ", ".join(f"{count} {kind}" for kind, count in excess.items())
        raise CoverageError(
            f"ONNX Runtime {version('onnxruntime')} would run {listed} in float that were to be "
            "INT8. Update onnxruntime, or build with --precision fp32."
        )
