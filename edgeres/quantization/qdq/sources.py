"""Where the error of TensorRT's placement comes from: the tensors that it rounds, by their role."""

from __future__ import annotations

from dataclasses import replace

from edgeres.quantization.graph import Graph
from edgeres.quantization.image import image_of
from edgeres.quantization.placement import Edge, Placement, branches_of
from edgeres.quantization.qdq.exact_pixels import ExactPixels
from edgeres.quantization.qdq.placement import shortcut_index

WEIGHTS, IMAGE, INSIDE, STREAM = "weights", "image", "inside blocks", "residual stream"


def error_sources(
    graph: Graph, placement: Placement, pixels: ExactPixels | None
) -> dict[str, Placement]:
    """Returns, by the name of each source of error, the placement that rounds it alone.

    Args:
        graph: the FP32 model.
        placement: TensorRT's.
        pixels: how the first convolution takes pixels as they are; None where the image is rounded.
    """
    stream, image = residual_stream(graph), image_of(graph).tensor
    edges: dict[str, list[Edge]] = {IMAGE: [], INSIDE: [], STREAM: []}
    for edge in placement.edges:
        root = graph.root(edge.tensor)
        if root in {graph.input, image}:
            # Pixels are integers as they come, so their edge rounds nothing.
            edges[IMAGE] += [edge] if pixels is None or edge.node != pixels.stem.name else []
        else:
            edges[STREAM if root in stream else INSIDE].append(edge)
    activations = {
        name: replace(placement, edges=tuple(each), weighted=frozenset())
        for name, each in edges.items()
    }
    return {WEIGHTS: replace(placement, edges=()), **activations}


def residual_stream(graph: Graph) -> frozenset[str]:
    """Returns the tensors that blocks hand on: where branches part, and what shortcuts bring."""
    adds = [n for n in graph.nodes if n.op_type == "Add"]
    starts = {start for add in adds if (start := branches_of(graph, add).start) is not None}
    shortcuts = {
        name
        for add in adds
        if (name := str(add.input[shortcut_index(graph, add)])) not in graph.constants
    }
    return frozenset(graph.root(name) for name in starts | shortcuts)
