"""Kernels to blocks: where they stand, what is added up, and why an engine is no faster there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from commands import passed, refusal
from digits import Digits

from edgeres.core.precision import Precision
from edgeres.core.verdict import KernelTime
from edgeres.evaluation.profile import profile_rows
from edgeres.onnx_file import load_onnx
from edgeres.targets.session_runner import model_runner


def kernel(name: str, ms: float, kind: str = "Conv", **more: Any) -> KernelTime:
    """Returns a kernel in INT8, unless it is said otherwise."""
    operator = more.pop("operator", kind)
    options = {"precision": Precision.INT8, **more}
    return KernelTime(name=name, operator=operator, kind=kind, ms=ms, **options)


STEM, FIRST, SECOND, ADD = (
    "/conv1/Conv",
    "/layer1/layer1.0/conv1/Conv",
    "/layer1/layer1.0/conv2/Conv",
    "/layer1/layer1.0/Add",
)
REFERENCE = tuple(
    kernel(name, ms, kind, precision=Precision.FP32)
    for name, ms, kind in (
        (STEM, 1.0, "Conv"),
        (FIRST, 2.0, "Conv"),
        (SECOND, 2.0, "Conv"),
        (ADD, 0.5, "Add"),
    )
)


def test_blocks_hold_the_sum_of_their_layers() -> None:
    """In the reference's order; what stands alone is a block without layers below it."""
    engine = (kernel(STEM, 0.5), kernel(FIRST, 1.0), kernel(SECOND, 0.8), kernel(ADD, 0.2, "Add"))
    rows = profile_rows(engine, REFERENCE)
    assert [(row.block, row.layer) for row in rows] == [
        ("conv1", None),
        ("layer1.0", None),
        ("layer1.0", "conv1"),
        ("layer1.0", "conv2"),
        ("layer1.0", "Add"),
    ]
    assert [row.engine_ms for row in rows] == pytest.approx([0.5, 2.0, 1.0, 0.8, 0.2])
    assert [row.reference_ms for row in rows] == pytest.approx([1.0, 4.5, 2.0, 2.0, 0.5])
    assert {row.why for row in rows} == {""}


def test_a_reformat_counts_to_what_comes_next() -> None:
    """It is there for that layer; one behind the last belongs to the last."""
    engine = (
        kernel("Reformat 1", 0.4, "Transpose", is_reformat=True),
        kernel(STEM, 0.1),
        kernel("Reformat 2", 3.0, "QuantizeLinear", is_reformat=True),
        kernel(FIRST, 1.0),
        kernel(SECOND, 1.0),
        kernel("Reformat 3", 0.2, "DequantizeLinear", is_reformat=True),
    )
    rows = {(row.block, row.layer): row for row in profile_rows(engine, REFERENCE)}
    assert rows["conv1", None].engine_ms == pytest.approx(0.5)
    assert rows["layer1.0", "conv1"].engine_ms == pytest.approx(4.0)
    assert rows["layer1.0", "conv2"].engine_ms == pytest.approx(1.2)
    assert rows["layer1.0", "conv1"].why == "1 reformat, 3.000 of 4.000 ms"


def test_a_float_layer_is_named() -> None:
    """Where it makes the block no faster."""
    fused = kernel(FIRST, 2.0, "NhwcFusedConv", operator="Conv", precision=Precision.FP32)
    engine = (kernel(STEM, 0.5), fused)
    rows = {(row.block, row.layer): row for row in profile_rows(engine, REFERENCE[:2])}
    assert rows["layer1.0", "conv1"].why == "1 in float (NhwcFusedConv)"
    assert rows["conv1", None].why == ""


def test_kernels_too_short_to_gain() -> None:
    """Starting them is what takes the time."""
    reference = (kernel(STEM, 0.002, precision=Precision.FP32),)
    (row,) = profile_rows((kernel(STEM, 0.002),), reference)
    assert row.why == "1 kernel of 2.0 us: starting them is most of it"


def test_what_is_computed_elsewhere_is_no_gain() -> None:
    """An addition within a convolution, in either of the two."""
    rows = {row.layer: row for row in profile_rows((kernel(FIRST, 1.0),), REFERENCE[1:3])}
    assert (rows["conv2"].engine_ms, rows["conv2"].why) == (
        0.0,
        "computed together with another layer",
    )
    (other,) = [row for row in profile_rows(REFERENCE[1:], REFERENCE[1:3]) if row.layer == "Add"]
    assert other.why == "in the reference a part of another layer"


def test_without_a_reason_none_is_given() -> None:
    """As slow as the reference, and its kernels do not show why."""
    (row,) = profile_rows((kernel(STEM, 1.0),), REFERENCE[:1])
    assert (row.engine_ms, row.why) == (1.0, "")


def test_onnx_runtime_s_kernels_have_the_network_s_names(digits: Digits) -> None:
    """Every convolution of the FP32 model once, whatever its fusions call it, and what it took."""
    model = load_onnx(digits.model)
    runner = model_runner(model)
    images = np.zeros((2, 3, 32, 32), np.float32)
    kernels = runner.kernel_times(images, iterations=3)
    convolutions = [node.name for node in model.proto.graph.node if node.op_type == "Conv"]
    assert [k.name for k in kernels if k.operator == "Conv"] == convolutions
    assert all(k.ms > 0 for k in kernels if k.operator == "Conv")
    assert {k.precision for k in kernels if k.operator == "Conv"} == {Precision.FP32}


def test_bench_shows_where_the_time_goes(digits: Digits) -> None:
    """Block by block as JSON, with the same blocks as the network has; and for people."""
    line = digits.words(
        "bench {engine} --reference {model} --data {test} --samples 20 --iterations 4 --warmup 0 "
        "--no-energy"
    )
    rows = json.loads(passed(*line, "--profile", "--json"))["profile"]
    assert set(rows[0]) == {"block", "layer", "engine_ms", "reference_ms", "why"}
    blocks = [row["block"] for row in rows if row["layer"] is None]
    expected = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1, 2)]
    assert [block for block in blocks if block.startswith("layer")] == expected
    for block in expected:
        whole, *layers = [row for row in rows if row["block"] == block]
        for column in ("engine_ms", "reference_ms"):
            assert sum(row[column] for row in layers) == pytest.approx(whole[column])
    assert "where the time goes" in passed(*line, "--profile")
    without = json.loads(passed(*line, "--json"))
    assert without["profile"] == []


def test_a_simulation_has_no_time_to_show(digits: Digits) -> None:
    """So the option is refused."""
    line = digits.words("bench {table} --simulate --reference {model} --data {test} --profile")
    assert "--profile times layers, and --simulate times none" in refusal(*line, code=2)


def test_the_bytes_that_are_profiled_are_those_of_the_engine(digits: Digits) -> None:
    """Its integer convolutions are integer in the profile."""
    from edgeres.core.artifacts import load_engine
    from edgeres.targets.base import engine_runner
    from edgeres.targets.runner import Profiled

    runner = engine_runner(load_engine(digits.engine))
    assert isinstance(runner, Profiled)
    kernels = runner.kernel_times(np.zeros((1, 3, 32, 32), np.float32), iterations=2)
    integer = [k for k in kernels if k.precision is Precision.INT8 and k.operator == "Conv"]
    source = onnx.load(digits.engine).graph.node
    assert len(integer) >= sum(node.op_type in {"Conv", "QLinearConv"} for node in source) - 1
