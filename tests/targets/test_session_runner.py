"""The CPU runner gives ONNX Runtime's own logits, as arrays that are the caller's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import CLASSES, SIZE, images, network
from numpy.typing import NDArray

from edgeres.core.artifacts import TensorSpec
from edgeres.errors import ConfigError, MismatchError, RunnerError
from edgeres.session import open_session
from edgeres.targets import session_runner
from edgeres.targets.session_runner import OnnxRuntimeRunner

INPUT = TensorSpec(name="image", shape=(None, 3, SIZE, SIZE))
OUTPUT = TensorSpec(name="logits", shape=(None, CLASSES))


@pytest.fixture(scope="module")
def model() -> bytes:
    """A small residual network."""
    serialized: bytes = network("identity").SerializeToString()
    return serialized


def runner(model: bytes | Path, input: TensorSpec = INPUT) -> OnnxRuntimeRunner:
    """Returns a runner of a model with one thread, not yet open."""
    return OnnxRuntimeRunner(model, input=input, output=OUTPUT, name="tiny.onnx", threads=1)


def expected(model: bytes, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns what ONNX Runtime computes when it is called directly."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(["logits"], {"image": batch})[0]
    return logits


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_logits_are_onnx_runtimes(model: bytes, count: int) -> None:
    """Bit for bit, at any batch size, and the images are left as they were."""
    batch = images(count)
    kept = batch.copy()
    with runner(model) as opened:
        logits = opened.infer(batch)
    np.testing.assert_array_equal(logits, expected(model, kept))
    np.testing.assert_array_equal(batch, kept)
    assert logits.shape == (count, CLASSES)


def test_a_file_is_run_as_its_bytes_are(model: bytes, tmp_path: Path) -> None:
    """An engine on disk and a network in memory go through the same session."""
    path = tmp_path / "m.onnx"
    path.write_bytes(model)
    with runner(path) as opened:
        np.testing.assert_array_equal(opened.infer(images(2)), expected(model, images(2)))


def test_images_that_cannot_be_written_are_taken(model: bytes) -> None:
    """A runner only reads them."""
    batch = images(2)
    batch.flags.writeable = False
    with runner(model) as opened:
        opened.infer(batch)


def test_results_belong_to_the_caller(model: bytes) -> None:
    """The next call does not touch them, nor does what the caller does to them reach it."""
    with runner(model) as opened:
        first = opened.infer(images(2))
        kept = first.copy()
        second = opened.infer(images(2, seed=1))
        np.testing.assert_array_equal(first, kept)
        first.fill(np.nan)
        np.testing.assert_array_equal(opened.infer(images(2, seed=1)), second)
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize(
    "shape", [(2, 3, SIZE, SIZE - 1), (2, 1, SIZE, SIZE), (3, SIZE, SIZE), (2, 3, SIZE, SIZE, 1)]
)
def test_a_wrong_shape_is_refused(model: bytes, shape: tuple[int, ...]) -> None:
    """Both shapes are in the sentence; ONNX Runtime is not asked."""
    with runner(model) as opened, pytest.raises(MismatchError) as refused:
        opened.infer(np.zeros(shape, np.float32))
    assert str(refused.value) == (
        f"tiny.onnx on onnxruntime-cpu takes images of shape ('N', 3, {SIZE}, {SIZE}), not "
        f"{shape}. Check that data and engine belong to the same model."
    )
    assert refused.value.exit_code == 6


def test_a_fixed_batch_is_held_to(model: bytes) -> None:
    """A model exported for one image takes one image."""
    fixed = TensorSpec(name="image", shape=(1, 3, SIZE, SIZE))
    with runner(model, fixed) as opened:
        opened.infer(images(1))
        with pytest.raises(MismatchError, match=r"takes images of shape \(1, 3, 16, 16\), not \(2"):
            opened.infer(images(2))


def test_it_must_be_open(model: bytes) -> None:
    """Before the with statement and after it."""
    closed = runner(model)
    with pytest.raises(RunnerError, match=r"is not open\. Use it in a with statement\."):
        closed.infer(images(1))
    with closed:
        closed.infer(images(1))
    with pytest.raises(RunnerError, match="is not open"):
        closed.infer(images(1))


def test_it_is_closed_on_every_way_out(model: bytes) -> None:
    """An error in the with statement releases the session too."""
    opened = runner(model)
    with pytest.raises(KeyboardInterrupt), opened:
        raise KeyboardInterrupt
    with pytest.raises(RunnerError, match="is not open"):
        opened.infer(images(1))


@pytest.mark.parametrize("model", [b"no model", b""])
def test_what_onnx_runtime_refuses_is_told(model: bytes) -> None:
    """When it is opened, with ONNX Runtime's version and reason."""
    with pytest.raises(RunnerError, match=f"ONNX Runtime {onnxruntime.__version__} refused the"):
        runner(model).__enter__()


def test_a_failure_of_the_kernel_is_told(model: bytes) -> None:
    """A model whose weights do not fit each other passes the loader and fails in a kernel."""
    broken = onnx.load_model_from_string(model)
    shape = broken.graph.input[0].type.tensor_type.shape
    for dim, name in zip(shape.dim, "nchw", strict=True):
        dim.dim_param = name
    anything = TensorSpec(name="image", shape=(None, None, None, None))
    with (
        runner(broken.SerializeToString(), anything) as opened,
        pytest.raises(RunnerError, match=r"tiny\.onnx on onnxruntime-cpu failed: "),
    ):
        opened.infer(np.zeros((1, 2, SIZE, SIZE), np.float32))


def test_a_model_that_is_not_the_described_one_is_refused(model: bytes) -> None:
    """As where the manifest names another input than the engine has."""
    with pytest.raises(MismatchError) as refused, runner(model, replace(INPUT, name="x")):
        pass
    assert str(refused.value) == (
        "tiny.onnx on onnxruntime-cpu has the input and output image and logits, but is described "
        "with x and logits. Build or export it again."
    )


@pytest.mark.parametrize(
    ("cores", "streams", "threads"),
    [(8, 2, [4, 4]), (8, 3, [3, 3, 2]), (2, 2, [1, 1]), (5, 1, [5]), (7, 7, [1] * 7)],
)
def test_streams_share_the_cores(
    model: bytes, cores: int, streams: int, threads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every core works for one session, and none for two; the logits stay ONNX Runtime's."""
    asked: list[int] = []

    def opened(*arguments: Any, threads: int, **more: Any) -> Any:
        asked.append(threads)
        return open_session(*arguments, threads=1, **more)

    monkeypatch.setattr(session_runner, "usable_cores", lambda: cores)
    monkeypatch.setattr(session_runner, "open_session", opened)
    batches = [images(2, seed=seed) for seed in range(12)]
    with (
        runner(model).with_streams(streams, graph=False) as several,
        ThreadPoolExecutor(streams + 1) as pool,
    ):
        found = list(pool.map(several.infer, batches))
    assert asked == threads
    for batch, logits in zip(batches, found, strict=True):
        np.testing.assert_array_equal(logits, expected(model, batch))


def test_more_streams_than_cores_are_refused(model: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take turns; how many fit is said."""
    monkeypatch.setattr(session_runner, "usable_cores", lambda: 4)
    with pytest.raises(ConfigError, match=r"--streams 5 needs .* has 4 here.*--streams 4 or less"):
        runner(model).with_streams(5, graph=False)


def test_a_session_that_fails_is_lent_again(model: bytes) -> None:
    """An inference of the wrong shape takes nothing away from the next one."""
    with runner(model).with_streams(1, graph=False) as one:
        for _ in range(3):
            with pytest.raises(MismatchError, match="takes images of shape"):
                one.infer(np.zeros((1, 3, 2, 2), np.float32))
        assert one.infer(images(1)).shape == (1, CLASSES)
