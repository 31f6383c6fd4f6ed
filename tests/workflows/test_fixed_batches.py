"""A model or an engine of one batch size goes the whole way; its batch is no option to know."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import passed, refusal
from digits import QUICK, Digits, save_manifest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeres.core.artifacts import TensorSpec, load_engine
from edgeres.core.contract import preset
from edgeres.core.requests import BuildRequest
from edgeres.onnx_file import load_onnx
from edgeres.targets.runner import AnyBatch
from edgeres.targets.tensorrt.optimization_profile import profile_shapes


class Counting:
    """A runner that takes some batches alone, and gives each image its first value."""

    name = "counting"
    input = TensorSpec(name="image", shape=(None, 1, 1, 1))
    output = TensorSpec(name="logits", shape=(None, 1))

    def __init__(self) -> None:
        """Starts without a batch."""
        self.batches: list[int] = []

    def infer(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the first value of each image."""
        self.batches.append(len(images))
        return images.reshape(len(images), -1)[:, :1]

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *error: object) -> None:
        return None


@pytest.mark.parametrize(
    ("limits", "count", "batches"),
    [
        (None, 7, [7]),
        ((1, 16), 7, [7]),
        ((4, 4), 4, [4]),
        ((4, 4), 1, [4]),
        ((4, 4), 9, [4, 4, 4]),
        ((2, 8), 17, [8, 8, 2]),
    ],
)
def test_any_number_of_images_is_inferred(
    limits: tuple[int, int] | None, count: int, batches: list[int]
) -> None:
    """Each image has its own row, in order; what fills a batch up is taken off again."""
    images = np.arange(count, dtype=np.float32).reshape(-1, 1, 1, 1)
    runner = Counting()
    with AnyBatch(runner, limits) as any_batch:
        assert any_batch.infer(images).tolist() == images.reshape(-1, 1).tolist()
    assert runner.batches == batches


def static_model(digits: Digits, path: Path, batch: int = 4) -> Path:
    """Writes the digits' model for one batch size, as torch.export does."""
    model = onnx.load(digits.model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    flatten = next(n for n in model.graph.node if n.op_type == "Flatten")
    shape = numpy_helper.from_array(np.array([batch, 64], np.int64), "features")
    model.graph.initializer.append(shape)
    inputs = [flatten.input[0], shape.name]
    flatten.CopyFrom(helper.make_node("Reshape", inputs, flatten.output))
    onnx.save(model, path)
    return path


def test_a_model_of_one_batch_size_goes_the_whole_way(digits: Digits, tmp_path: Path) -> None:
    """Calibration with auto and sensitivity, mixed precision and bench, as with an open batch."""
    model = static_model(digits, tmp_path / "static.onnx")
    table, engine = tmp_path / "t.json", tmp_path / "e.onnx"
    passed(
        *f"calibrate {model} --data {digits.train} --samples 70 --sensitivity -o {table}".split()
    )
    line = f"build-engine {model} --calibration {table} --precision mixed --max-drop 5"
    passed(*f"{line} --judge-data {digits.test} -o {engine}".split())
    line = f"bench {engine} --reference {model} --data {digits.test} {QUICK} --diagnose --json"
    verdict = json.loads(passed(*line.split()))
    assert verdict["accuracy"]["samples"] == 100


def test_a_plan_of_that_model_takes_its_batch(digits: Digits, tmp_path: Path) -> None:
    """Unless another one is requested."""
    model = replace(load_onnx(static_model(digits, tmp_path / "s.onnx")).artifact, batch=4)
    opened = (-1, 3, 32, 32)
    for batch, expected in (((1, 1, 16), (4, 4, 4)), ((1, 2, 8), (1, 2, 8))):
        shapes = profile_shapes(opened, BuildRequest(batch=batch), preset("digits"), model)
        assert tuple(shape[0] for shape in shapes) == expected


def test_an_engine_of_one_batch_size_is_evaluated_by_it(digits: Digits, tmp_path: Path) -> None:
    """The last images too, which do not fill it; latency is that of a batch it takes."""
    engine = tmp_path / "fixed.onnx"
    shutil.copy(digits.engine, engine)
    save_manifest(engine, replace(load_engine(digits.engine).manifest, batch=(8, 8, 8)))
    line = f"bench {engine} --reference {digits.model} --data {digits.test} {QUICK} --json"
    verdict = json.loads(passed(*line.split()))
    assert verdict["accuracy"]["samples"] == 100
    assert verdict["latency"]["batch_size"] == 8
    assert "was built for batches of 8 to 8" in refusal(*line.split(), "--batch-size", 16, code=6)


def mix_images(model: onnx.ModelProto) -> None:
    """Adds the mean over all images to each logit, in a shape that hides the batch's axis."""
    graph = model.graph
    last = next(n for n in graph.node if graph.output[0].name in n.output)
    last.output[0] = "apart"
    values = {"line": np.array([1, -1]), "sides": np.array([1, 1])}
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in values.items())
    graph.node.extend(
        [
            helper.make_node("Reshape", ["apart", "line"], ["together"]),
            helper.make_node("ReduceMax", ["together"], ["largest"], axes=[1], keepdims=1),
            helper.make_node("Add", ["apart", "largest"], ["moved"]),
            helper.make_node("Mul", ["moved", "largest"], [graph.output[0].name]),
        ]
    )


@pytest.mark.parametrize("source", [lambda d: d.model, lambda d: d.engine], ids=["FP32", "INT8"])
def test_images_that_influence_each_other_are_found_by_running_it(
    source: Callable[[Digits], Path], digits: Digits, tmp_path: Path
) -> None:
    """Where no operator shows it: in a model, and in a quantized reference."""
    model = onnx.load(source(digits))
    mix_images(model)
    path = tmp_path / "mixed.onnx"
    onnx.save(model, path)
    if source(digits) == digits.model:
        line = f"calibrate {path} --data {digits.train} --samples 70 -o {tmp_path / 't.json'}"
    else:
        line = f"bench {digits.engine} --reference {path} --quantized-reference {QUICK} "
        line += f"--data {digits.test}"
    assert "gives an image other logits in a batch than alone" in refusal(*line.split())
