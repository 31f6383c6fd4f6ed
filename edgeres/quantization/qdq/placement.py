"""TensorRT's placement: the input of every convolution, and the shortcut of every Add.

TensorRT fuses conv + bias + add + relu into one INT8 kernel only when the main branch reaches
the Add unquantized, so of an Add's two inputs the shortcut alone gets Q/DQ. Source:
NVIDIA/TensorRT issue 1992; NVIDIA's pytorch-quantization ResNet-50 example.
"""

from __future__ import annotations

import onnx

from edgeres.errors import QuantizationError
from edgeres.plurals import counted
from edgeres.quantization.fp16.typed import QDQ_OPSET, at_opset
from edgeres.quantization.graph import Graph, attribute, view
from edgeres.quantization.image import image_of
from edgeres.quantization.placement import (
    LAYER_OPS,
    Edge,
    Placement,
    branches_of,
    placed_layer,
    refusal,
)
from edgeres.quantization.units import residual_additions

FIRST_REASON = "it reads the image, and FP8 has no kernel for so few channels"

STREAM_REASON = "what it reads of the residual stream stays in FP16, as --float-stream requests"

_FLOAT = {
    "MaxPool": "commutes with the quantization behind it: TensorRT moves it before the pool",
    "GlobalAveragePool": "rounding its few inputs' mean costs accuracy and buys no time",
}
"""Why TensorRT leaves operators in float that have an integer form elsewhere."""


def place_for_tensorrt(graph: Graph) -> Placement:
    """Returns which inputs TensorRT's lowering quantizes, and why not the others."""
    integer = [n for n in graph.nodes if refusal(graph, n) is None]
    convolutions = [n for n in integer if n.op_type == "Conv"]
    edges = [Edge(n.name, 0, n.input[0]) for n in convolutions]
    for add in (n for n in integer if n.op_type == "Add"):
        index = shortcut_index(graph, add)
        edges.append(Edge(add.name, index, add.input[index]))
    return Placement(
        edges=tuple(edges),
        weighted=frozenset(n.name for n in convolutions),
        layers=tuple(
            placed_layer(n, _FLOAT.get(n.op_type) or refusal(graph, n) or "")
            for n in graph.nodes
            if n.op_type in LAYER_OPS
        ),
    )


def fp8_graph(graph: Graph, *, float_stream: bool = False) -> Graph:
    """Returns the graph, at FP8's opset, with what FP8 leaves in float kept: the first convolutions.

    Source: NVIDIA/TensorRT issues 3987, a first convolution has no FP8 kernel, and 4524, grouped
    ones none that is fast.

    Args:
        graph: of any opset.
        float_stream: keep what additions read of the residual stream in float too.

    Raises:
        QuantizationError: the network has grouped convolutions.
    """
    convolutions = [n for n in graph.nodes if n.op_type == "Conv"]
    grouped = [n.name for n in convolutions if attribute(n, "group") not in (None, 1)]
    if grouped:
        raise QuantizationError(
            f"{len(grouped)} of {counted(len(convolutions), 'convolution')} are grouped (first: "
            f"{grouped[0]}), and FP8 has no fast kernel for these. Build with --precision int8 or "
            "fp16."
        )
    image = image_of(graph).tensor
    first = (n.name for n in convolutions if graph.root(n.input[0]) in {graph.input, image})
    additions = residual_additions(graph) if float_stream else ()
    stream = (name for addition in additions for name in addition.nodes)
    kept = {
        **dict.fromkeys(first, FIRST_REASON),
        **dict.fromkeys(stream, STREAM_REASON),
        **graph.kept,
    }
    return view(at_opset(graph.model, QDQ_OPSET)).keeping(kept)


def shortcut_index(graph: Graph, add: onnx.NodeProto) -> int:
    """Returns which input of a residual Add is the shortcut: the one behind fewer convolutions.

    A tie, and two inputs that never meet, give the second input.
    """
    first, second = branches_of(graph, add).convolutions
    return 0 if first < second else 1
