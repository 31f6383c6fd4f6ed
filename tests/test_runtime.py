"""`edgeres.load`: one object for every target, whose labels are bench's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from digits import CLASSES, Digits
from numpy.typing import NDArray
from onnx import parser
from PIL import Image
from scipy.special import softmax

import edgeres
from edgeres.core.artifacts import load_engine
from edgeres.core.contract_options import ContractOptions
from edgeres.errors import ConfigError, MismatchError, RunnerError
from edgeres.evaluation.evaluate import evaluate
from edgeres.images import batches, load_dataset
from edgeres.runtime import Classifier
from edgeres.targets.base import engine_runner
from edgeres.targets.loading import load_any_engine
from edgeres.testing import FakeRunner

CONSTANT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[{batch}, 3, 8, 8] image) => (float[{batch}, 4] outputs)
<float[4, 3] w = {{1, 0, 0, 0, 1, 0, 0, 0, 1, 0.5, 0.5, 0.5}}, float[4] b = {{0, 0, 0, 0}}>
{{
  pooled = GlobalAveragePool(image)
  flat = Flatten(pooled)
  {last} = Gemm<transB = 1>(flat, w, b)
  {tail}
}}
"""
"""Logits are the mean red, green, blue, and half of their sum."""

OPTIONS = ContractOptions(preset="cifar", input_size=8, mean=(0, 0, 0), std=(1, 1, 1))


def write_net(path: Path, *, batch: str = "N", activation: str = "") -> Path:
    """Writes a network without metadata, whose classes are colours."""
    tail = f"outputs = {activation}(logits)" if activation else ""
    text = CONSTANT.format(batch=batch, last="logits" if activation else "outputs", tail=tail)
    onnx.save(parser.parse_model(text), path)
    return path


def colours() -> list[NDArray[np.uint8]]:
    """Three frames in RGB whose highest channel is red, green and blue."""
    frames = np.full((3, 8, 8, 3), 10, np.uint8)
    for channel in range(3):
        frames[channel, ..., channel] = 200
    return list(frames)


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Classifier]:
    """The colours' network, open."""
    with edgeres.load(write_net(tmp_path / "net.onnx"), preprocessing=OPTIONS) as model:
        yield model


@pytest.fixture(scope="module")
def pixels(digits: Digits) -> NDArray[np.uint8]:
    """All test images of the digits."""
    images: NDArray[np.uint8] = np.load(digits.test)["images"]
    return images


def bench_labels(engine: Path, digits: Digits) -> NDArray[np.int64]:
    """Returns the classes that bench's own evaluation finds."""
    artifact = load_engine(engine)
    with engine_runner(artifact) as runner:
        stream = batches(load_dataset(digits.test), artifact.manifest.contract, batch_size=16)
        return evaluate(runner, stream).top1


def test_labels_are_those_of_bench(
    digits: Digits, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    """From RGB, BGR, images of Pillow and paths alike."""
    expected = bench_labels(digits.engine, digits).tolist()
    paths = [tmp_path / f"{index}.png" for index in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    forms: list[tuple[list[Any], str | None]] = [
        (list(pixels), "rgb"),
        ([image[..., ::-1] for image in pixels], "bgr"),
        ([Image.fromarray(image) for image in pixels], None),
        (list(paths), None),
    ]
    with edgeres.load(digits.engine) as model:
        for frames, color in forms:
            assert [one[0].index for one in model.predict(frames, color=color, top=1)] == expected


def test_an_fp32_model_is_an_engine_too(digits: Digits, pixels: NDArray[np.uint8]) -> None:
    """Without a manifest: its contract is in the file."""
    with edgeres.load(digits.model) as model:
        found = [one[0].index for one in model.predict(list(pixels), color="rgb", top=1)]
    labels = np.load(digits.test)["labels"]
    assert np.mean(found == labels) > 0.9


def test_a_single_frame_gives_its_own_predictions(
    digits: Digits, pixels: NDArray[np.uint8]
) -> None:
    """Five by default, the highest first, with the softmax of all logits."""
    with edgeres.load(digits.engine) as model:
        top = model.predict(pixels[0], color="rgb")
        (row,) = model.infer(model.prepare([pixels[0]], color="rgb"))
        everything = model.predict(pixels[0], color="rgb", top=99)
    assert [one.index for one in top] == np.argsort(-row)[:5].tolist()
    assert [one.logit for one in top] == sorted(row.tolist(), reverse=True)[:5]
    expected = softmax(row.astype(np.float64))
    assert [one.probability for one in top] == pytest.approx([expected[one.index] for one in top])
    assert len(everything) == CLASSES
    assert sum(one.probability for one in everything) == pytest.approx(1)


def test_colours_are_told_apart(net: Classifier) -> None:
    """The same bytes are another image in the other order."""
    assert [one[0].index for one in net.predict(colours(), color="rgb")] == [0, 1, 2]
    assert [one[0].index for one in net.predict(colours(), color="bgr")] == [2, 1, 0]
    with pytest.raises(ConfigError, match="Frame 0 is an array of three channels, whose order"):
        net.predict(colours())
    with pytest.raises(ConfigError, match=r"color is 'bgra'\. Did you mean 'bgr'"):
        net.predict(colours(), color="bgra")


def test_an_order_without_effect_is_refused(net: Classifier) -> None:
    """A picture and a gray array have none to state; beside an array it may stand."""
    picture, gray = Image.fromarray(colours()[0]), colours()[0][..., 0]
    none: list[list[Any]] = [[picture], [gray], [picture, gray]]
    for frames in none:
        with pytest.raises(ConfigError, match="color='bgr' is the order of the channels of NumPy"):
            net.predict(frames, color="bgr")
    assert len(net.predict([picture, colours()[0]], color="rgb")) == 2


def test_equal_outputs_are_ranked_by_index(net: Classifier) -> None:
    """As in bench: the lowest class first."""
    white = np.full((8, 8, 3), 255, np.uint8)
    assert [one.index for one in net.predict(white, color="rgb")] == [3, 0, 1, 2]


def test_many_equal_outputs_are_ranked_by_index(digits: Digits) -> None:
    """With more classes than a sort keeps in order by chance."""

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        row = np.arange(200) % 2
        return np.repeat(row[None].astype(np.float32), len(images), axis=0)

    with Classifier(load_engine(digits.engine), FakeRunner(logits=logits)) as model:
        top = model.predict(np.zeros((8, 8), np.uint8), top=150)
    assert [one.index for one in top] == [*range(1, 200, 2), *range(0, 100, 2)]


def test_a_list_of_none_and_a_bad_top(net: Classifier) -> None:
    """Nothing in, nothing out; no class is no prediction."""
    assert net.predict([]) == ()
    with pytest.raises(ConfigError, match="top is 0; expected at least 1 class"):
        net.predict(colours()[0], color="rgb", top=0)


@pytest.mark.parametrize("activation", ["Softmax", "Sigmoid"])
def test_probabilities_are_recognised(activation: str, tmp_path: Path) -> None:
    """The output is the probability, and there is no logit."""
    path = write_net(tmp_path / "net.onnx", activation=activation)
    with edgeres.load(path, preprocessing=OPTIONS) as model:
        (row,) = model.infer(model.prepare(colours()[:1], color="rgb"))
        top = model.predict(colours()[0], color="rgb", top=4)
    assert [(one.probability, one.logit) for one in top] == [(row[one.index], None) for one in top]


def test_log_probabilities_become_probabilities(tmp_path: Path) -> None:
    """Their softmax is that of the logits."""
    with edgeres.load(write_net(tmp_path / "a.onnx"), preprocessing=OPTIONS) as model:
        expected = model.predict(colours()[0], color="rgb", top=4)
    path = write_net(tmp_path / "b.onnx", activation="LogSoftmax")
    with edgeres.load(path, preprocessing=OPTIONS) as model:
        top = model.predict(colours()[0], color="rgb", top=4)
    assert [one.probability for one in top] == pytest.approx([one.probability for one in expected])


@pytest.mark.parametrize("batch", ["1", "2", "N"])
@pytest.mark.parametrize("count", [1, 3, 37])
def test_a_list_of_any_length_fits_any_batch(batch: str, count: int, tmp_path: Path) -> None:
    """A fixed batch is filled up, and what was filled in is dropped."""
    frames = [colours()[index % 3] for index in range(count)]
    path = write_net(tmp_path / "net.onnx", batch=batch)
    with edgeres.load(path, preprocessing=OPTIONS) as model:
        found = [one[0].index for one in model.predict(frames, color="rgb", top=1)]
    assert found == [index % 3 for index in range(count)]


MIXING = {
    "every image is multiplied by the sum of all": (
        'sum = Einsum<equation = "nc,mc->mc">(raw, raw) outputs = Add(raw, sum)'
    ),
    "the images before are added": "axis = Constant<value_int = 0>() outputs = CumSum(raw, axis)",
    "the mean of a transposed batch": (
        "turned = Transpose<perm = [1, 0]>(raw) m = ReduceMean<axes = [1], keepdims = 0>(turned) "
        "outputs = Sub(raw, m)"
    ),
}
"""Networks of other tools whose graph does not show it to the checks of a file."""


@pytest.mark.parametrize("kind", MIXING)
def test_another_tools_engine_that_mixes_a_batch_is_refused(kind: str, tmp_path: Path) -> None:
    """At each list, on the user's own images; a single frame has none to mix with."""
    path = tmp_path / "net.onnx"
    text = CONSTANT.format(batch="N", last="raw", tail=MIXING[kind])
    onnx.save(parser.parse_model(text), path)
    with edgeres.load(path, preprocessing=OPTIONS) as model:
        assert len(model.predict(colours()[1], color="rgb", top=1)) == 1
        for _ in range(2):
            with pytest.raises(RunnerError, match=r"net\.onnx on .*batch"):
                model.predict(colours(), color="rgb")


def test_what_does_not_mix_is_checked_once(digits: Digits, tmp_path: Path) -> None:
    """And never where edgeres built the engine, since its model was checked."""
    foreign = load_any_engine(write_net(tmp_path / "net.onnx"), options=OPTIONS)
    own = load_engine(digits.engine)
    for engine, expected in ((foreign, [3, 3, 1, 1, 3, 3]), (own, [3, 3])):
        counts: list[int] = []

        def logits(images: NDArray[np.float32], counts: list[int] = counts) -> NDArray[np.float32]:
            counts.append(len(images))
            means: NDArray[np.float32] = images.mean(axis=(2, 3))
            return means

        with Classifier(engine, FakeRunner(logits=logits)) as model:
            for _ in range(2):
                model.predict(colours(), color="rgb")
        assert counts == expected


def test_any_number_of_threads_may_call_it(digits: Digits, pixels: NDArray[np.uint8]) -> None:
    """Each gets the predictions of its own frames."""
    parts = [list(pixels[start : start + 7]) for start in range(0, 140, 7)]
    with edgeres.load(digits.engine) as model:
        expected = [model.predict(part, color="rgb") for part in parts]
        with ThreadPoolExecutor(8) as pool:
            pending = [pool.submit(model.predict, part, color="rgb") for part in parts]
            results: list[Any] = [each.result() for each in pending]
    assert results == expected


def test_a_closed_engine_is_refused(net: Classifier) -> None:
    """With what to do; closing twice is none."""
    net.close()
    net.close()
    for call in (
        lambda: net.predict(colours()[0], color="rgb"),
        lambda: net.infer(np.zeros((1, 3, 8, 8), np.float32)),
    ):
        with pytest.raises(RunnerError, match=r"was closed\. Load it again with edgeres\.load"):
            call()


def test_it_warms_up_by_an_inference_of_its_own(digits: Digits) -> None:
    """And is closed again where that fails."""
    counted: list[int] = []

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        counted.append(len(images))
        return np.zeros((len(images), CLASSES), np.float32)

    runner = FakeRunner(logits=logits)
    model = Classifier(load_engine(digits.engine), runner)
    model.warm_up(3)
    assert (counted, runner.is_open) == ([1, 1, 1], True)
    model.close()
    assert not runner.is_open


def test_outputs_that_are_no_numbers_are_refused(digits: Digits) -> None:
    """By the place of the image in the list."""
    engine = load_engine(digits.engine)

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.zeros((len(images), CLASSES), np.float32)
        out[-1, 3] = np.nan
        return out

    with Classifier(engine, FakeRunner(logits=logits)) as model:
        frames = [np.zeros((8, 8), np.uint8)] * 3
        with pytest.raises(RunnerError, match=r"NaN or infinite outputs \(first: image 2 of 3\)"):
            model.predict(frames)


def test_class_names_and_a_reference_that_lends_them(tmp_path: Path) -> None:
    """An engine without names takes those of its reference, with the contract."""
    from edgeres.onnx_file import load_onnx, save_model

    bare = write_net(tmp_path / "net.onnx")
    model = load_onnx(bare)
    named = replace(
        model.artifact, classes=("red", "green", "blue", "gray"), contract=OPTIONS.resolve("cifar")
    )
    save_model(tmp_path / "named.onnx", model.proto, named)
    with edgeres.load(bare, reference=tmp_path / "named.onnx") as lent:
        assert lent.predict(colours()[1], color="rgb")[0].name == "green"
        assert lent.classes == named.classes
    with edgeres.load(bare, preprocessing=OPTIONS) as nameless:
        assert nameless.predict(colours()[1], color="rgb")[0].name is None


def test_an_unknown_contract_is_asked_for_and_a_known_one_not_typed_twice(
    digits: Digits, tmp_path: Path
) -> None:
    """Nothing is guessed, and nothing overruled."""
    with pytest.raises(ConfigError, match="carries no preprocessing contract"):
        edgeres.load(write_net(tmp_path / "net.onnx"))
    for known in (digits.engine, digits.model):
        with pytest.raises(ConfigError, match="carries its own preprocessing contract"):
            edgeres.load(known, preprocessing=OPTIONS)


def test_an_image_of_the_wrong_size_is_refused(net: Classifier) -> None:
    """By the engine, when somebody prepares it by hand."""
    with pytest.raises(MismatchError, match="takes images of shape"):
        net.infer(np.zeros((1, 3, 9, 9), np.float32))


def test_loading_needs_no_torch(digits: Digits) -> None:
    """Nor the command line: what a board has is enough."""
    script = (
        "import sys, edgeres, numpy\n"
        f"model = edgeres.load({str(digits.engine)!r})\n"
        "model.predict(numpy.zeros((8, 8), numpy.uint8))\n"
        "print([name for name in ('torch', 'click', 'rich', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
