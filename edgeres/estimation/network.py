"""A network's file or name to its latency on a board, without the board."""

from __future__ import annotations

from pathlib import Path

from edgeres.errors import ConfigError
from edgeres.estimation.estimate import (
    BoardEstimate,
    EstimatedNetwork,
    EstimateRequest,
    estimate_network,
)
from edgeres.input_files import MODEL, is_file
from edgeres.networks.explain import explain_architecture
from edgeres.networks.network import Network
from edgeres.networks.outline import outline
from edgeres.onnx_file import load_fp32
from edgeres.quantization.graph import view


def estimate_latency(model: str, request: EstimateRequest) -> BoardEstimate:
    """Returns what a board would do with a network.

    Args:
        model: path of an FP32 ONNX file, or the name of a registered architecture.
        request: board, precisions, batches and timings.

    Raises:
        ConfigError: no such architecture, and no such file.
        ArtifactError: the file is not ONNX, or is quantized already.
    """
    return estimate_network(network_of(model), request)


def network_of(model: str) -> EstimatedNetwork:
    """Returns the network of a file, or of an architecture's name; see `estimate_latency`."""
    path = Path(model)
    if path.suffix == ".onnx" or is_file(path, MODEL):
        loaded = load_fp32(path)
        graph = view(loaded.proto)
        if graph.input not in graph.shapes:
            raise ConfigError(
                f"The size of {path}'s image input '{graph.input}' is not fixed, and its latency "
                "depends on it. Export it with a fixed height and width."
            )
        return EstimatedNetwork(
            name=path.name,
            graph=graph,
            architecture=loaded.artifact.architecture,
        )
    try:
        network = explain_architecture(model)
    except ConfigError as error:
        raise ConfigError(f"{error} Or pass the path of an ONNX file.") from error
    return architecture_network(network)


def architecture_network(network: Network) -> EstimatedNetwork:
    """Returns an explained architecture as the model sees it."""
    name = network.spec.name
    return EstimatedNetwork(name=name, graph=view(outline(network)), architecture=name)
