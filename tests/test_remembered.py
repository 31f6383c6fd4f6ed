"""What tests do not compute again is what ONNX Runtime would answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import remembered
from networks import CLASSES, SIZE, images, network, with_weight
from numpy.typing import NDArray

from edgeres.core.artifacts import TensorSpec
from edgeres.evaluation import evaluate
from edgeres.evaluation.evaluate import Predictions
from edgeres.targets.session_runner import OnnxRuntimeRunner


@dataclass(frozen=True)
class Batch:
    """Labelled images, as evaluation takes them."""

    images: NDArray[np.float32]

    @property
    def indices(self) -> NDArray[np.int64]:
        """Their places."""
        return np.arange(len(self.images))

    @property
    def labels(self) -> NDArray[np.int64]:
        """All of the first class."""
        return np.zeros(len(self.images), np.int64)

    @property
    def hashes(self) -> tuple[str, ...]:
        """None is needed."""
        return ()


def runner_of(model: onnx.ModelProto | Path, *, integer: bool = True) -> OnnxRuntimeRunner:
    """Returns the CPU's runner of one of the tiny networks."""
    return OnnxRuntimeRunner(
        model if isinstance(model, Path) else model.SerializeToString(),
        input=TensorSpec(name="image", shape=(None, 3, SIZE, SIZE)),
        output=TensorSpec(name="logits", shape=(None, CLASSES)),
        name="tiny",
        integer=integer,
    )


def evaluated(
    model: onnx.ModelProto | Path, x: NDArray[np.float32], *, integer: bool = True
) -> Predictions:
    """Returns what an evaluation finds."""
    with runner_of(model, integer=integer) as runner:
        return evaluate.evaluate(runner, [Batch(x)])


def beside(model: onnx.ModelProto, folder: Path) -> Path:
    """Writes a model whose weights lie in a file of their own."""
    folder.mkdir()
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
    return folder / "m.onnx"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, list[NDArray[np.float32]]]:
    """Nothing was asked before."""
    empty: dict[bytes, list[NDArray[np.float32]]] = {}
    monkeypatch.setattr(remembered, "answers", empty)
    return empty


def test_the_same_question_is_computed_once(
    answers: dict[bytes, list[NDArray[np.float32]]], tmp_path: Path
) -> None:
    """Whether the model is bytes or a file, and whatever its metadata say."""
    model, x = network("identity"), images(4)
    first = evaluated(model, x)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": x})[0]
    np.testing.assert_array_equal(next(iter(answers.values()))[0], expected)
    model.metadata_props.add(key="a", value="b")
    onnx.save(model, tmp_path / "m.onnx")
    again = evaluated(tmp_path / "m.onnx", x)
    assert len(answers) == 1
    np.testing.assert_array_equal(again.confidence, first.confidence)


def test_another_question_is_another_one(answers: dict[bytes, list[NDArray[np.float32]]]) -> None:
    """Of one weight, one pixel, one operator, one batch or other kernels."""
    model, x = network("identity"), images(4)
    weight = with_weight(model, "fc_w", lambda value: value * np.float32(1.001))
    operator = network("identity")
    next(node for node in operator.graph.node if node.op_type == "Relu").op_type = "Abs"
    pixel = x.copy()
    pixel[0, 0, 0, 0] += 1
    evaluated(model, x)
    evaluated(weight, x)
    evaluated(operator, x)
    evaluated(model, pixel)
    evaluated(model, x[:2])
    evaluated(model, x, integer=False)
    assert len(answers) == 6


def test_a_clock_sees_what_is_computed(answers: dict[bytes, list[NDArray[np.float32]]]) -> None:
    """Only an evaluation is answered from memory, and may not write to it."""
    model, x = network("identity"), images(4)
    evaluated(model, x)
    (known,) = answers.values()
    known[0][:] = 7
    with runner_of(model) as runner:
        assert not (runner.infer(x) == 7).any()
        found = evaluate._logits(runner, Batch(x))
        assert (found == 7).all()
        found[:] = 3
        assert (evaluate._logits(runner, Batch(x)) == 7).all()


def test_weights_beside_the_file_are_not_told_by_it(
    answers: dict[bytes, list[NDArray[np.float32]]], tmp_path: Path
) -> None:
    """Two files that differ in them alone are both computed, as are models too large to keep."""
    model, x = network("identity"), images(4)
    other = with_weight(model, "fc_w", np.negative)
    first = evaluated(beside(model, tmp_path / "a"), x)
    second = evaluated(beside(other, tmp_path / "b"), x)
    assert not np.array_equal(first.top1, second.top1)
    assert answers == {}


def test_a_large_model_is_not_kept(
    answers: dict[bytes, list[NDArray[np.float32]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes would stay in memory for nothing."""
    monkeypatch.setattr(remembered, "MAX_BYTES", 100)
    evaluated(network("identity"), images(4))
    assert answers == {}
