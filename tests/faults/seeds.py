"""How faults are seeded: files of the digits with one thing wrong, and bench on them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from click.testing import Result
from commands import run
from digits import Digits, save_manifest, sha256_of
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeres.core.artifacts import load_engine
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.onnx_file import load_onnx, save_model
from edgeres.workflows import BuildInputs, build_from_model

BRIEF = "--samples 200 --iterations 2 --warmup 0 --no-energy"
"""Options of bench for faults that no clock shows."""


def bench(
    engine: Path, model: Path, data: Path, *options: object, brief: str = BRIEF
) -> tuple[Result, dict[str, Any]]:
    """Returns how bench ended and the verdict that it printed as JSON."""
    words = ("bench", engine, "--reference", model, "--data", data, *brief.split(), *options)
    result = run(*words, "--json")
    assert result.stdout, result.stderr
    return result, json.loads(result.stdout)


def reasons(verdict: dict[str, Any], name: str) -> list[str]:
    """Returns the reasons of the failed checks of a name."""
    return [c["reason"] for c in verdict["checks"] if c["name"] == name and not c["passed"]]


def alarms(verdict: dict[str, Any]) -> list[str]:
    """Returns everything that a verdict warns of or fails on."""
    return [*verdict["warnings"], *(c["reason"] for c in verdict["checks"] if not c["passed"])]


def fp32_engine(model: Path) -> Path:
    """Returns an FP32 engine of the model, built beside it."""
    engine = model.with_suffix(".fp32.onnx")
    build_from_model(
        BuildInputs(model=model, output=engine), BuildRequest(precision=Precision.FP32)
    )
    return engine


def with_contract(model: Path, path: Path, **changes: Any) -> Path:
    """Writes a copy of a model whose preprocessing contract has other values."""
    loaded = load_onnx(model)
    described = loaded.artifact
    assert described.contract is not None
    contract = replace(described.contract, **changes)
    save_model(path, loaded.proto, replace(described, contract=contract))
    return path


def rewritten(engine: Path, model: onnx.ModelProto, path: Path) -> Path:
    """Writes a CPU engine's graph anew, with a manifest that vouches for the bytes."""
    path.write_bytes(model.SerializeToString())
    manifest = replace(load_engine(engine).manifest, engine_sha256=sha256_of(path))
    save_manifest(path, manifest)
    return path


def arrays(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Returns the images, (N, H, W, 3), and labels, (N,), of an npz."""
    with np.load(path) as stored:
        return stored["images"], stored["labels"]


def save_arrays(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Path:
    """Writes an npz of images and labels."""
    np.savez(path, images=images, labels=labels)
    return path


def red_digits(digits: Digits, grey: Path, folder: Path) -> tuple[Path, Path]:
    """Returns a network that reads the red channel alone, and images with other digits in blue.

    On grey images it computes what the digits' network computes, because it weighs red as that
    one weighs all three.
    """
    loaded = load_onnx(digits.model)
    model = loaded.proto
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    tensor = next(t for t in model.graph.initializer if t.name == first.input[1])
    weight = numpy_helper.to_array(tensor)
    red = np.zeros_like(weight)
    red[:, 0] = weight.sum(axis=1)
    tensor.CopyFrom(numpy_helper.from_array(red, tensor.name))
    path = folder / "red.onnx"
    save_model(path, model, loaded.artifact)
    images, labels = arrays(grey)
    colored = images.copy()
    colored[..., 1] = 0
    colored[..., 2] = np.roll(images[..., 2], 1, axis=0)
    return path, save_arrays(folder / "colored.npz", colored, labels)


def without_pair(model: onnx.ModelProto, reader: str, place: int) -> onnx.ModelProto:
    """Returns a copy in which an operator's input comes straight from before its Q/DQ pair.

    Args:
        model: a network with Q/DQ pairs.
        reader: name of the operator.
        place: of the input.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    makers = {name: node for node in copied.graph.node for name in node.output}
    node = next(node for node in copied.graph.node if node.name == reader)
    dequantize = makers[node.input[place]]
    quantize = makers[dequantize.input[0]]
    assert (quantize.op_type, dequantize.op_type) == ("QuantizeLinear", "DequantizeLinear")
    node.input[place] = quantize.input[0]
    return copied


def with_ballast(model: onnx.ModelProto, size: int = 256) -> onnx.ModelProto:
    """Returns a copy that multiplies large matrices before it answers, and answers the same."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    graph = copied.graph
    image, logits = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.output[:] = ["honest" if name == logits else name for name in node.output]
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.full((size, size), 1 / size, np.float32), "load"),
            numpy_helper.from_array(np.array(0, np.float32), "nothing"),
        ]
    )
    make = onnx.helper.make_node
    graph.node.extend(
        [
            make("ReduceMean", [image], ["one"], keepdims=0),
            make("Add", ["load", "one"], ["heavy0"]),
            *(make("MatMul", [f"heavy{n}", "load"], [f"heavy{n + 1}"]) for n in range(8)),
            make("ReduceMean", ["heavy8"], ["light"], keepdims=0),
            make("Mul", ["light", "nothing"], ["zero"]),
            make("Add", ["honest", "zero"], [logits], name="ballast"),
        ]
    )
    return copied
