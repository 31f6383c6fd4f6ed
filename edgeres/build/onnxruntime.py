"""The `onnxruntime` target: an ONNX file whose graph ONNX Runtime's CPU kernels run as meant.

What counts is the graph after ONNX Runtime's own fusions, so it is read back and held against
the lowering: a layer that was meant to be integer and runs in float is an error.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import onnx

from edgeres.artifacts import EngineArtifact
from edgeres.build.manifest import Built, save_engine
from edgeres.contract import Contract
from edgeres.errors import BuildError
from edgeres.model_file import Network
from edgeres.ort import open_session
from edgeres.spec import BuildConfig, Precision

_FLOAT_FORMS = {
    "Conv": {"Conv", "FusedConv", "NhwcFusedConv"},
    "Add": {"Add"},
    "Gemm": {"Gemm", "FusedGemm"},
    "GlobalAveragePool": {"GlobalAveragePool"},
}
"""Operators of ONNX Runtime that compute a layer in float, in the standard or in its own domain."""


def build(
    network: Network, config: BuildConfig, contract: Contract, *, output: Path
) -> EngineArtifact:
    """Writes the network as an ONNX file, after ONNX Runtime has shown how it runs it.

    Raises:
        BuildError: ONNX Runtime runs layers in float that were to be integer.
        RunnerError: ONNX Runtime refused the network.
        ArtifactError: the files cannot be written.
    """
    serialized = network.model.SerializeToString()
    if config.precision is Precision.INT8:
        check_integer(network, optimized_model(serialized))
    versions = {name: version(name) for name in ("onnx", "onnxruntime")}
    return save_engine(
        Built(engine=serialized, versions=versions), network, config, contract, output
    )


def optimized_model(serialized: bytes) -> onnx.ModelProto:
    """Returns the graph that ONNX Runtime really runs on this machine."""
    with tempfile.TemporaryDirectory(prefix="edgeres-") as folder:
        path = Path(folder) / "optimized.onnx"
        open_session(serialized, optimized=path)
        return onnx.load(path)


def check_integer(network: Network, optimized: onnx.ModelProto) -> None:
    """Checks that no more layers of any kind run in float than the lowering left there.

    Raises:
        BuildError: some do; the message counts them by kind.
    """
    found = Counter(_kinds(optimized))
    meant = Counter(
        layer.op_type for layer in network.layers if layer.precision is not Precision.INT8
    )
    excess = {kind: found[kind] - meant[kind] for kind in found if found[kind] > meant[kind]}
    if excess:
        listed = ", ".join(f"{count} {kind}" for kind, count in excess.items())
        raise BuildError(
            f"ONNX Runtime {version('onnxruntime')} would run {listed} in float that were to be "
            "INT8. Update onnxruntime, or build with --precision fp32."
        )


def _kinds(model: onnx.ModelProto) -> Iterable[str]:
    for node in model.graph.node:
        for kind, forms in _FLOAT_FORMS.items():
            if node.op_type in forms:
                yield kind
