"""Tiny residual classifiers as ONNX text with seeded weights, one for each kind of block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper, parser

SIZE = 16
"""Height and width of every network's image."""

CLASSES = 5

_SHAPES: Mapping[str, tuple[int, ...]] = {
    "stem": (8, 3, 3, 3),
    "stem7": (8, 3, 7, 7),
    "main1": (8, 8, 3, 3),
    "main2": (8, 8, 3, 3),
    "main3": (8, 8, 3, 3),
    "main4": (8, 8, 3, 3),
    "down1": (16, 8, 3, 3),
    "down2": (16, 16, 3, 3),
    "project": (16, 8, 1, 1),
    "squeeze": (4, 8, 1, 1),
    "middle": (4, 4, 3, 3),
    "expand": (16, 4, 1, 1),
    "grouped": (8, 2, 3, 3),
    "head": (8, 8),
    "offset": (8, 1, 1),
    "wide": (11, 3, 3, 3),
    "fc": (CLASSES, 8),
    "fc11": (CLASSES, 11),
    "fc16": (CLASSES, 16),
}
"""Shape of each layer's weight; its bias has the first dimension."""

_NORMS = {"norm1": 8, "norm2": 8, "norm3": 8}
"""Channels of each batch normalisation."""

_TAIL = """
  pooled = GlobalAveragePool(last)
  flat = Flatten(pooled)
  logits = Gemm<transB = 1>(flat, {fc}_w, {fc}_b)
"""

_STEM = """
  stem = Conv<pads = [1, 1, 1, 1]>(image, stem_w, stem_b)
  entry = Relu(stem)
"""

_MAIN = """
  hidden = Conv<pads = [1, 1, 1, 1]>(entry, main1_w, main1_b)
  hidden_relu = Relu(hidden)
  main = Conv<pads = [1, 1, 1, 1]>(hidden_relu, main2_w, main2_b)
"""

_DOWN = """
  hidden = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(entry, down1_w, down1_b)
  hidden_relu = Relu(hidden)
  main = Conv<pads = [1, 1, 1, 1]>(hidden_relu, down2_w, down2_b)
"""


def _block(main: str, shortcut: str, add: str, fc: str, stem: str = _STEM) -> str:
    return (
        stem + main + shortcut + f"  sum = Add({add})\n  last = Relu(sum)\n" + _TAIL.format(fc=fc)
    )


_PROJECTION = "  shortcut = Conv<strides = [2, 2]>(entry, project_w, project_b)\n"

_PADDED = """
  sliced = Slice(entry, starts, ends, axes, steps)
  shortcut = Pad(sliced, padding)
"""

_BODIES: Mapping[str, str] = {
    "identity": _block(_MAIN, "", "main, entry", "fc"),
    "down-sampling": _block(_DOWN, _PROJECTION, "main, shortcut", "fc16"),
    "option A": _block(_DOWN, _PADDED, "main, shortcut", "fc16"),
    "bottleneck": _block(
        """
  reduced = Conv(entry, squeeze_w, squeeze_b)
  reduced_relu = Relu(reduced)
  hidden = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(reduced_relu, middle_w, middle_b)
  hidden_relu = Relu(hidden)
  main = Conv(hidden_relu, expand_w, expand_b)
""",
        _PROJECTION,
        "main, shortcut",
        "fc16",
    ),
    "grouped": _block(
        _MAIN.replace(
            "[1, 1, 1, 1]>(entry, main1", "[1, 1, 1, 1], group = 4>(entry, grouped", 1
        ).replace("main1_b", "grouped_b"),
        "",
        "main, entry",
        "fc",
    ),
    "max-pooled stem": _block(
        _MAIN,
        "",
        "main, entry",
        "fc",
        stem="""
  stem = Conv<pads = [1, 1, 1, 1]>(image, stem_w, stem_b)
  stem_relu = Relu(stem)
  entry = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(stem_relu)
""",
    ),
    "two-layer head": _block(_MAIN, "", "main, entry", "fc").replace(
        "logits = Gemm<transB = 1>(flat",
        """scores = Gemm(flat, head_w, head_b)
  scores_relu = Relu(scores)
  logits = Gemm<transB = 1>(scores_relu""",
    ),
    "pre-activation": """
  entry = Conv<pads = [1, 1, 1, 1]>(image, stem_w, stem_b)
  normed1 = BatchNormalization(entry, norm1_g, norm1_b, norm1_m, norm1_v)
  active1 = Relu(normed1)
  hidden1 = Conv<pads = [1, 1, 1, 1]>(active1, main1_w, main1_b)
  hidden1_relu = Relu(hidden1)
  main = Conv<pads = [1, 1, 1, 1]>(hidden1_relu, main2_w, main2_b)
  sum = Add(main, entry)
  normed2 = BatchNormalization(sum, norm2_g, norm2_b, norm2_m, norm2_v)
  active2 = Relu(normed2)
  hidden2 = Conv<pads = [1, 1, 1, 1]>(active2, main3_w, main3_b)
  hidden2_relu = Relu(hidden2)
  deep = Conv<pads = [1, 1, 1, 1]>(hidden2_relu, main4_w, main4_b)
  sum2 = Add(deep, sum)
  normed3 = BatchNormalization(sum2, norm3_g, norm3_b, norm3_m, norm3_v)
  last = Relu(normed3)
"""
    + _TAIL.format(fc="fc"),
}

NAMES = tuple(_BODIES)

FOLDED = tuple(name for name in NAMES if "BatchNormalization" not in _BODIES[name])
"""Networks without batch normalisation, as an export leaves them."""


def network(name: str, seed: int = 0) -> onnx.ModelProto:
    """Returns the network of that name, (N, 3, 16, 16) to (N, 5), opset 17, checked."""
    return network_from_body(_BODIES[name], seed)


def network_from_body(body: str, seed: int = 0) -> onnx.ModelProto:
    """Returns a network of these nodes, from `image` to `logits`, with the weights they read."""
    text = (
        f'<ir_version: 8, opset_import: ["" : 17]> '
        f"tiny (float[N,3,{SIZE},{SIZE}] image) => (float[N,{CLASSES}] logits) {{{body}}}"
    )
    model = parser.parse_model(text)
    read = {name for node in model.graph.node for name in node.input}
    values: dict[str, NDArray[Any]] = {**_weights(seed), **_SHORTCUT_A}
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in values.items() if name in read
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Returns (count, 3, 16, 16) float32 from a standard normal."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, 3, SIZE, SIZE)).astype(np.float32)


def initializers(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Returns every initializer by name."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def logits_of(
    model: onnx.ModelProto, x: NDArray[np.float32], *, optimized: bool = True
) -> NDArray[np.float32]:
    """Returns what ONNX Runtime computes, with all of its optimisations or none."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    logits: NDArray[np.float32] = session.run(["logits"], {"image": x})[0]
    return logits


def swapped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of the model with the operands of every Add in the other order."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for node in copied.graph.node:
        if node.op_type == "Add":
            first, second = node.input
            node.input[:] = [second, first]
    return copied


def with_weight(
    model: onnx.ModelProto,
    name: str,
    change: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> onnx.ModelProto:
    """Returns a copy of the model in which `change` was applied to one initializer."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = next(t for t in changed.graph.initializer if t.name == name)
    value = change(numpy_helper.to_array(tensor).copy()).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(value, name))
    return changed


_SHORTCUT_A = {
    "starts": np.array([0, 0], np.int64),
    "ends": np.array([SIZE, SIZE], np.int64),
    "axes": np.array([2, 3], np.int64),
    "steps": np.array([2, 2], np.int64),
    "padding": np.array([0, 4, 0, 0, 0, 4, 0, 0], np.int64),
}
"""He et al. 2016a, option A: every second position, zeros for the new channels."""


def _weights(seed: int) -> dict[str, NDArray[np.float32]]:
    """Returns weights of variance 2 / fan-in, biases and batch statistics, by initializer name."""
    generator = np.random.default_rng(seed)
    found = {}
    for name, shape in _SHAPES.items():
        found[name + "_w"] = generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        found[name + "_b"] = generator.normal(0, 0.1, shape[0])
    for name, channels in _NORMS.items():
        found[name + "_g"] = generator.uniform(0.5, 1.5, channels)
        found[name + "_b"] = generator.normal(0, 0.1, channels)
        found[name + "_m"] = generator.normal(0, 0.1, channels)
        found[name + "_v"] = generator.uniform(0.5, 1.5, channels)
    return {name: value.astype(np.float32) for name, value in found.items()}
