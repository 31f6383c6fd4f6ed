"""The ONNX graph of an architecture: operators, names and shapes, without one weight's value.

What counts operators reads a registered name as it reads a file, where neither torch nor a
checkpoint is there. Names are those of an exported file; batch normalisation is folded where the
export folds it. The graph cannot be run: its initializers have shapes alone.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper

from edgeres.networks.network import BuildingBlock, LayerShape, Network, Skip
from edgeres.networks.specification import BlockKind

INPUT = "input"
OUTPUT = "logits"

_OPSET = 17


def outline(network: Network) -> onnx.ModelProto:
    """Returns the graph of a network, its input (N, 3, size, size)."""
    graph = _Outline()
    preactivated = network.spec.block is BlockKind.PREACTIVATION
    tensor = graph.convolution(network.stem, INPUT)
    if not preactivated:
        tensor = graph.relu("/relu", tensor)
    if network.pool is not None:
        pool = network.pool
        tensor = graph.node(
            "MaxPool",
            "/maxpool/MaxPool",
            [tensor],
            kernel_shape=[pool.kernel] * 2,
            strides=[pool.stride] * 2,
            pads=[pool.kernel // 2] * 4,
        )
    for stage in network.stages:
        for block in stage.blocks:
            within = f"/{stage.name}/{block.name}"
            add = _preactivated if preactivated else _block
            tensor = add(graph, block, within, tensor)
    if preactivated:
        channels = network.blocks[-1].channels[-1]
        tensor = graph.relu(
            "/relu", graph.normalization("/bn/BatchNormalization", tensor, channels)
        )
    pooled = graph.node("GlobalAveragePool", "/avgpool/GlobalAveragePool", [tensor])
    flat = graph.node("Flatten", "/Flatten", [pooled])
    head = network.classifier
    weight = graph.constant("fc.weight", [head.out_channels, head.in_channels])
    bias = graph.constant("fc.bias", [head.out_channels])
    graph.nodes.append(
        helper.make_node("Gemm", [flat, weight, bias], [OUTPUT], name="/fc/Gemm", transB=1)
    )
    return graph.model(network)


def _block(graph: _Outline, block: BuildingBlock, within: str, tensor: str) -> str:
    """Adds a block whose Add is followed by the last ReLU; returns its output."""
    shortcut = tensor
    for number, layer in enumerate(block.layers):
        tensor = graph.convolution(layer, tensor, within)
        if number < len(block.layers) - 1:
            tensor = graph.relu(f"{within}/relu_{number}", tensor)
    tensor = _joined(graph, block, within, tensor, shortcut, shortcut)
    return graph.relu(f"{within}/relu", tensor)


def _preactivated(graph: _Outline, block: BuildingBlock, within: str, tensor: str) -> str:
    """Adds a block that normalises before its first convolution; returns its output."""
    channels = block.layers[0].in_channels
    normalised = graph.normalization(f"{within}/bn1/BatchNormalization", tensor, channels)
    start = branch = graph.relu(f"{within}/relu", normalised)
    for number, layer in enumerate(block.layers):
        branch = graph.convolution(layer, branch, within)
        if number < len(block.layers) - 1:
            branch = graph.relu(f"{within}/relu_{number}", branch)
    return _joined(graph, block, within, branch, tensor, start)


def _joined(
    graph: _Outline, block: BuildingBlock, within: str, main: str, identity: str, start: str
) -> str:
    """Adds the skip connection, from `identity`, or a projection of `start`, and its Add."""
    if block.skip is Skip.NONE:
        return main
    if block.projection is not None:
        identity = graph.convolution(block.projection, start, within)
    elif block.skip is Skip.PADDING:
        step, channels = block.stride, block.channels[-1] - block.channels[0]
        cut = [("starts", [0, 0]), ("ends", [2**31] * 2), ("axes", [2, 3]), ("steps", [step] * 2)]
        names = [graph.integers(f"{within}/downsample/{name}", value) for name, value in cut]
        identity = graph.node("Slice", f"{within}/downsample/Slice", [identity, *names])
        ends = [channels // 2, channels - channels // 2]
        pads = graph.integers(f"{within}/downsample/pads", [0, ends[0], 0, 0, 0, ends[1], 0, 0])
        identity = graph.node("Pad", f"{within}/downsample/Pad", [identity, pads])
    return graph.node("Add", f"{within}/Add", [main, identity])


class _Outline:
    """An ONNX graph that grows by an operator at a time."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, op_type: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Adds an operator and returns its output."""
        output = f"{name}_output_0"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
        return output

    def constant(self, name: str, dims: list[int]) -> str:
        """Adds a weight that has a shape alone, and returns its name."""
        self.constants.append(TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT))
        return name

    def integers(self, name: str, values: list[int]) -> str:
        """Adds a list of integers, which shapes depend on, and returns its name."""
        self.constants.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        return name

    def convolution(self, layer: LayerShape, tensor: str, within: str = "") -> str:
        """Adds a convolution with its bias, which batch normalisation leaves when it is folded."""
        module = layer.name.split(".", 2)[-1].replace(".", "/") if within else layer.name
        shape = [layer.out_channels, layer.in_channels // layer.groups, layer.kernel, layer.kernel]
        weight = self.constant(f"{layer.name}.weight", shape)
        bias = self.constant(f"{layer.name}.bias", [layer.out_channels])
        return self.node(
            "Conv",
            f"{within}/{module}/Conv",
            [tensor, weight, bias],
            kernel_shape=shape[2:],
            strides=[layer.stride] * 2,
            pads=[layer.kernel // 2] * 4,
            group=layer.groups,
        )

    def normalization(self, name: str, tensor: str, channels: int) -> str:
        """Adds a batch normalisation that no convolution stands before."""
        ends = ("weight", "bias", "running_mean", "running_var")
        parameters = [self.constant(f"{name}.{end}", [channels]) for end in ends]
        return self.node("BatchNormalization", name, [tensor, *parameters])

    def relu(self, module: str, tensor: str) -> str:
        """Adds a ReLU."""
        return self.node("Relu", f"{module}/Relu", [tensor])

    def model(self, network: Network) -> onnx.ModelProto:
        """Returns the whole, with its input and output."""
        size = network.spec.input_size
        image = helper.make_tensor_value_info(
            INPUT, TensorProto.FLOAT, ["N", network.stem.in_channels, size, size]
        )
        logits = helper.make_tensor_value_info(
            OUTPUT, TensorProto.FLOAT, ["N", network.classifier.out_channels]
        )
        graph = helper.make_graph(self.nodes, network.spec.name, [image], [logits])
        # Beside the constructor: it would check the values that these do not have.
        graph.initializer.extend(self.constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8
        )
