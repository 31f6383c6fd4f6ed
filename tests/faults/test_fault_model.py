"""Models that others made, from file to verdict: none passes that should be stopped."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from commands import passed, refusal, run
from digits import QUICK, Digits, save_manifest
from onnx import TensorProto, helper, numpy_helper
from seeds import alarms, arrays, bench, fp32_engine, reasons, save_arrays

from edgeres import graph_checks
from edgeres.core.artifacts import load_engine
from edgeres.core.bench_requests import BenchInputs, BenchRequest
from edgeres.evaluation import coverage
from edgeres.onnx_file import load_onnx, save_model
from edgeres.targets.base import find_target
from edgeres.targets.tensorrt.target import TensorRTTarget
from edgeres.workflows import validity
from edgeres.workflows.bench_pair import Reference, load_pair


def with_end(digits: Digits, path: Path, *operators: str) -> Path:
    """Writes the digits' network with these operators behind its logits."""
    loaded = load_onnx(digits.model)
    model, tensor = loaded.proto, "scores"
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = tensor
    for index, op_type in enumerate(operators):
        output = "logits" if index == len(operators) - 1 else f"end{index}"
        model.graph.node.append(helper.make_node(op_type, [tensor], [output], name=output))
        tensor = output
    save_model(path, model, loaded.artifact)
    return path


def with_mixed_batch(digits: Digits, path: Path) -> Path:
    """Writes the digits' network with the mean of the batch's logits taken off.

    The batch is the last axis while the mean is taken, so that only running it shows what it does.
    """
    loaded = load_onnx(digits.model)
    model = loaded.proto
    last = next(node for node in model.graph.node if "logits" in node.output)
    last.output[0] = "scores"
    model.graph.node.extend(
        [
            helper.make_node("Transpose", ["scores"], ["columns"], perm=[1, 0]),
            helper.make_node("ReduceMean", ["columns"], ["means"], axes=[1]),
            helper.make_node("Sub", ["columns", "means"], ["centred"]),
            helper.make_node("Transpose", ["centred"], ["logits"], perm=[1, 0]),
        ]
    )
    save_model(path, model, loaded.artifact)
    return path


def with_output(digits: Digits, path: Path, kind: str) -> Path:
    """Writes the digits' network with an output of another kind than a row of logits."""
    loaded = load_onnx(digits.model)
    graph, make = loaded.proto.graph, helper.make_node
    last = next(node for node in graph.node if "logits" in node.output)

    def value(name: str, *dims: str | int, dtype: int = TensorProto.FLOAT) -> None:
        graph.output.append(helper.make_tensor_value_info(name, dtype, dims))

    if kind == "two_outputs":
        # A pooled feature map serves as well as any.
        graph.node.append(make("Flatten", ["logits"], ["features"]))
        value("features", "batch", 10)
    else:
        last.output[0] = "scores"
        del graph.output[:]
    if kind in {"one_value", "open_one"}:
        graph.node.append(make("ReduceMax", ["scores"], ["logits"], axes=[1], keepdims=1))
        value("logits", "batch", 1 if kind == "one_value" else "classes")
    elif kind == "rank_4":
        shape = numpy_helper.from_array(np.array([0, 0, 1, 1]), "four")
        graph.initializer.append(shape)
        graph.node.append(make("Reshape", ["scores", "four"], ["logits"]))
        value("logits", "batch", 10, 1, 1)
    elif kind == "class_index":
        graph.node.append(make("ArgMax", ["scores"], ["logits"], axis=1, keepdims=1))
        value("logits", "batch", 2, dtype=TensorProto.INT64)
    elif kind == "open":
        graph.node.append(make("Identity", ["scores"], ["logits"]))
        value("logits", "batch", "classes")
    # Such files are others': our own have one row of logits, and their contract with it.
    del loaded.proto.metadata_props[:]
    path.write_bytes(loaded.proto.SerializeToString())
    return path


@pytest.fixture(scope="module")
def swapped(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test images with the labels 3 and 5 exchanged, as by two class folders."""
    images, labels = arrays(digits.test)
    other = labels.copy()
    other[labels == 3], other[labels == 5] = 5, 3
    return save_arrays(tmp_path_factory.mktemp("swapped") / "swapped.npz", images, other)


TO_FP32 = ("--precision", "fp32", "-o")
DIGITS = ("--preset", "digits")

QUICK_MANY = "--samples 400 --iterations 2 --warmup 0 --no-energy"
"""Forty images of each class, and no clock."""

ENDS = [("Softmax",), ("Softmax", "Log"), ("Softmax", "Identity", "Flatten")]


@pytest.mark.parametrize("operators", [*ENDS, ("Identity",)], ids="+".join)
def test_swapped_classes_are_named_whatever_a_network_ends_in(
    operators: tuple[str, ...], digits: Digits, swapped: Path, tmp_path: Path
) -> None:
    """As they are with logits: with the classes, and exit code 6."""
    model = with_end(digits, tmp_path / "m.onnx", *operators)
    result, verdict = bench(fp32_engine(model), model, swapped, brief=QUICK_MANY)
    assert result.exit_code == 6
    assert "3 is 5, 5 is 3" in "".join(reasons(verdict, "likely_mistakes"))
    assert (f"ends in {'LogSoftmax' if 'Log' in operators else operators[0]}" in result.stderr) is (
        operators != ("Identity",)
    )


@pytest.mark.parametrize("end", ["Softmax", "Sigmoid", "LogSoftmax"])
def test_a_healthy_network_raises_no_alarm(end: str, digits: Digits, tmp_path: Path) -> None:
    """Its confidence is that of its logits, within rounding, or the class's own for Sigmoid."""
    model = with_end(digits, tmp_path / "m.onnx", end)
    result, verdict = bench(fp32_engine(model), model, digits.test, "--diagnose", brief=QUICK_MANY)
    assert (result.exit_code, alarms(verdict)) == (0, [])
    copied = Path(shutil.copy(digits.model, tmp_path / "plain.onnx"))
    _, plain = bench(
        fp32_engine(copied),
        copied,
        digits.test,
        "--diagnose",
        brief=QUICK_MANY,
    )
    expected = plain["diagnosis"]["confidence"]
    if end != "Sigmoid":
        assert verdict["diagnosis"]["confidence"] == pytest.approx(expected, rel=1e-5)
    assert verdict["accuracy"]["reference"] == plain["accuracy"]["reference"]


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
@pytest.mark.parametrize("end", ["Softmax", "Sigmoid", "LogSoftmax", ""])
def test_an_engine_as_reference_keeps_how_its_model_ends(
    end: str, target: str, digits: Digits, tmp_path: Path
) -> None:
    """By its manifest, which a plan has too: nothing else shows how that one ends."""
    model = with_end(digits, tmp_path / "m.onnx", *([end] if end else ["Identity"]))
    engine = load_engine(fp32_engine(model))
    gives = end in {"Softmax", "Sigmoid"}
    assert engine.manifest.activation == end
    save_manifest(engine.path, replace(engine.manifest, target=target, compute_capability=None))
    inputs = BenchInputs(engine=engine.path, reference=engine.path, data=digits.test)
    opened: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        # The plan itself is not run here: only what is known of it counts.
        patch.setattr(TensorRTTarget, "open", lambda target, engine: opened.append(engine.path))
        patch.setattr(coverage, "target_of", lambda manifest: find_target("onnxruntime"))
        assert load_pair(inputs, BenchRequest()).reference.gives_probabilities is gives
    assert bool(opened) is (target == "tensorrt")


def test_an_engine_of_logits_is_not_compared_with_one_of_probabilities(
    digits: Digits, tmp_path: Path
) -> None:
    """Not of one network either: these figures are of two kinds."""
    model = with_end(digits, tmp_path / "m.onnx", "Softmax")
    words = ("--reference", fp32_engine(model), "--data", digits.test, *QUICK.split())
    said = refusal("bench", digits.engine, *words, code=6)
    assert "ends in logits" in said
    assert "ends in Softmax: their outputs cannot be compared" in said


SHAPES = {
    "one_value": ("gives 1 value an image", "torch.cat("),
    "rank_4": ("to (None, 10, 1, 1)", "torch.flatten("),
    "two_outputs": ("outputs ['logits', 'features']", "extract_model("),
    "class_index": ("to int64; edgeres takes float32", "Export the model"),
}
"""Outputs that are no row of at least two scores, with the fact and the remedy."""


@pytest.mark.parametrize("kind", SHAPES)
def test_an_output_that_is_no_row_of_scores_is_refused(
    kind: str, digits: Digits, tmp_path: Path
) -> None:
    """By calibrate, build-engine and bench, with what was found and what to do."""
    path, output = with_output(digits, tmp_path / "m.onnx", kind), tmp_path / "out"
    for line in (
        ("bench", digits.engine, "--reference", path, "--data", digits.test),
        ("calibrate", path, "--data", digits.train, "-o", output),
        ("build-engine", path, "--precision", "fp32", "-o", output),
    ):
        said = refusal(*line)
        assert all(words in said for words in SHAPES[kind])


def test_a_number_of_classes_that_the_file_leaves_open_is_counted(
    digits: Digits, tmp_path: Path
) -> None:
    """Ten are evaluated; a single one, by which every image would be correct, is refused."""
    path, engine = with_output(digits, tmp_path / "m.onnx", "open"), tmp_path / "e.onnx"
    passed("build-engine", path, *TO_FP32, engine, *DIGITS)
    _, verdict = bench(engine, path, digits.test, *DIGITS)
    assert verdict["accuracy"]["drop_pp"] == 0
    images, labels = arrays(digits.test)
    zeros = save_arrays(tmp_path / "zeros.npz", images[labels == 0], labels[labels == 0])
    single = with_output(digits, tmp_path / "one.onnx", "open_one")
    assert "gives 1 value an image" in refusal("build-engine", single, *TO_FP32, engine, *DIGITS)
    words = ("--reference", path, "--data", zeros, *DIGITS, *QUICK.split())
    assert "gives 1 value an image" in refusal("bench", single, *words)


def test_the_swap_would_pass_if_probabilities_were_taken_for_logits(
    digits: Digits, swapped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard's fault, seeded."""
    monkeypatch.setattr(Reference, "gives_probabilities", False)
    model = with_end(digits, tmp_path / "m.onnx", "Softmax")
    result, verdict = bench(fp32_engine(model), model, swapped, brief=QUICK_MANY)
    assert (result.exit_code, verdict["diagnosis"]) == (0, None)


def without_answers(digits: Digits, path: Path, kind: str) -> Path:
    """Writes the digits' network such that its logits no longer depend on the digit."""
    loaded = load_onnx(digits.model)
    graph = loaded.proto.graph
    last = next(node for node in graph.node if "logits" in node.output)
    tensor = next(t for t in graph.initializer if t.name == last.input[1])
    weight = numpy_helper.to_array(tensor)
    dead = {
        "a classifier of zeros": weight * 0,
        "one class for all": np.tile(weight[:1], (10, 1)),
    }
    tensor.CopyFrom(numpy_helper.from_array(dead[kind].astype(np.float32), tensor.name))
    save_model(path, loaded.proto, loaded.artifact)
    return path


@pytest.mark.parametrize("kind", ["a classifier of zeros", "one class for all"])
def test_a_network_that_recognises_nothing_does_not_pass(
    kind: str, digits: Digits, tmp_path: Path
) -> None:
    """Its engine keeps its accuracy, and that is worth nothing."""
    model = without_answers(digits, tmp_path / "m.onnx", kind)
    result, verdict = bench(fp32_engine(model), model, digits.test, "--max-drop", 5)
    assert (result.exit_code, verdict["outcome"]) == (3, "INCONCLUSIVE")
    assert "with the most frequent label as the answer" in reasons(verdict, "reference_accuracy")[0]


@pytest.mark.parametrize("kind", ["red alone", "half the size", "noisy labels"])
def test_images_that_no_mistake_explains_let_nothing_pass(
    kind: str, digits: Digits, tmp_path: Path
) -> None:
    """The network is sure of what it sees and wrong; were that not looked at, it would pass."""
    images, labels = arrays(digits.test)
    wrong = np.random.default_rng(0).permutation(labels)
    images, labels = {
        "red alone": (images * np.array([1, 0, 0], np.uint8), labels),
        "half the size": (images[:, ::2, ::2], labels),
        "noisy labels": (images, np.where(np.arange(len(labels)) % 3 == 0, wrong, labels)),
    }[kind]
    data, limits = save_arrays(tmp_path / "d.npz", images, labels), ("--max-drop", 5)
    result, verdict = bench(digits.engine, digits.model, data, *limits)
    assert (result.exit_code, verdict["outcome"]) == (3, "INCONCLUSIVE")
    assert "may not be those that it was trained with" in reasons(verdict, "reference_accuracy")[0]
    known, verdict = bench(digits.engine, digits.model, data, *limits, "--reference-top1", 98)
    assert known.exit_code == 6
    assert "significantly below the 98.0 %" in reasons(verdict, "reference_top1")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validity, "is_suspicious", lambda predictions: False)
        assert bench(digits.engine, digits.model, data, *limits)[0].exit_code == 0


def test_small_logits_do_not_hide_wrong_images(digits: Digits, tmp_path: Path) -> None:
    """A network with a temperature is never too confident: mirrored images, a third correct."""
    loaded = load_onnx(digits.model)
    last = next(node for node in loaded.proto.graph.node if "logits" in node.output)
    for tensor in loaded.proto.graph.initializer:
        if tensor.name in last.input:
            cooled = numpy_helper.to_array(tensor) * np.float32(0.08)
            tensor.CopyFrom(numpy_helper.from_array(cooled, tensor.name))
    model = tmp_path / "cool.onnx"
    save_model(model, loaded.proto, loaded.artifact)
    images, labels = arrays(digits.test)
    mirrored = save_arrays(tmp_path / "d.npz", images[:, :, ::-1], labels)
    engine, limit = fp32_engine(model), ("--max-drop", 5)
    result, verdict = bench(engine, model, mirrored, *limit)
    assert (result.exit_code, verdict["outcome"]) == (3, "INCONCLUSIVE")
    assert verdict["accuracy"]["reference"]["top1"] < 0.5
    assert "of the images alone" in reasons(verdict, "reference_accuracy")[0]
    assert bench(engine, model, digits.test, *limit)[0].exit_code == 0


def test_images_of_one_class_show_nothing(digits: Digits, tmp_path: Path) -> None:
    """An engine that answers 4 to everything would pass."""
    images, labels = arrays(digits.test)
    fours = save_arrays(tmp_path / "fours.npz", images[labels == 4], labels[labels == 4])
    result, verdict = bench(
        digits.engine, digits.model, fours, "--decide", "point", "--max-drop", 5
    )
    assert (result.exit_code, verdict["outcome"]) == (3, "INCONCLUSIVE")
    assert len(reasons(verdict, "reference_accuracy")) == 1


def test_calibration_warns_of_probabilities(digits: Digits, tmp_path: Path) -> None:
    """In one line."""
    model = with_end(digits, tmp_path / "m.onnx", "Softmax")
    words = ("--data", digits.train, "--samples", 32, "-o", tmp_path / "t.json")
    result = run("calibrate", model, *words)
    assert result.exit_code == 0
    assert f"{model} ends in Softmax" in result.stderr.replace("\n", "")


def test_a_batch_that_mixes_is_refused_before_any_figure(digits: Digits, tmp_path: Path) -> None:
    """By calibrate and by bench, which an engine of it that exists does not change."""
    model = with_mixed_batch(digits, tmp_path / "m.onnx")
    engine = fp32_engine(model)
    sentence = "gives an image other logits in a batch than alone"
    output = tmp_path / "t.json"
    assert sentence in refusal("calibrate", model, "--data", digits.train, "-o", output)
    words = ("--reference", model, "--data", digits.test, *QUICK.split())
    assert sentence in refusal("bench", engine, *words)


def test_an_engine_of_another_tool_that_mixes_its_batch_is_refused(
    digits: Digits, tmp_path: Path
) -> None:
    """Sixteen at a time it is nearly as good as the model, alone it knows nothing."""
    mixing = with_mixed_batch(digits, tmp_path / "m.onnx")
    words = ("--reference", digits.model, "--data", digits.test, "--max-drop", 10, *QUICK.split())
    for batch in ((), ("--batch-size", 16), ("--batch-size", 1)):
        said = refusal("bench", mixing, *words, *batch)
        assert "m.onnx on onnxruntime-cpu gives an image other logits in a batch than alone" in said


@pytest.fixture
def lost_manifest(digits: Digits, tmp_path: Path) -> Path:
    """A copy of the INT8 engine without its manifest."""
    return Path(shutil.copy(digits.engine, tmp_path / "model.onnx"))


def quantized_elsewhere(digits: Digits, path: Path) -> Path:
    """Writes the digits' network with the weights of its classifier in FP16."""
    model = onnx.load(digits.model)
    weight = next(t for t in model.graph.initializer if t.dims == [10, 64])
    half = numpy_helper.to_array(weight).astype(np.float16)
    model.graph.initializer.append(numpy_helper.from_array(half, "half"))
    cast = helper.make_node("Cast", ["half"], [weight.name], to=onnx.TensorProto.FLOAT)
    model.graph.initializer.remove(weight)
    model.graph.node.insert(0, cast)
    onnx.save(model, path)
    return path


def test_a_quantized_reference_is_refused(digits: Digits, lost_manifest: Path) -> None:
    """With its operators, and the option that takes it."""
    words = ("--reference", lost_manifest, "--data", digits.test, *QUICK.split())
    message = refusal("bench", digits.engine, *words)
    assert "is no FP32 model: it has" in message
    assert "19 INT8 weights" in message
    assert "--quantized-reference" in message


def rounded(digits: Digits, path: Path) -> Path:
    """Writes the digits' network with INT8 weights, and no operator that shows it."""
    model = onnx.load(digits.model)
    for tensor in (t for t in model.graph.initializer if len(t.dims) > 1):
        weights = numpy_helper.to_array(tensor)
        step = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / 127
        near = (np.rint(weights / step) * step).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(near, tensor.name))
    onnx.save(model, path)
    return path


def test_a_network_whose_quantization_was_taken_out_is_no_fp32_model(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its weights; were they not looked at, it would pass as its own reference."""
    model, output = rounded(digits, tmp_path / "m.onnx"), tmp_path / "out"
    words = ("--reference", model, "--data", digits.test, "--max-drop", 5, *QUICK.split())
    sentence = "it has 20 FP32 weights that were rounded to 10 bits or fewer"
    for line in (
        ("calibrate", model, "--data", digits.train, "-o", output),
        ("build-engine", model, *TO_FP32, output),
        ("bench", digits.engine, *words),
    ):
        assert sentence in refusal(*line)
    with monkeypatch.context() as patch:
        patch.setattr(graph_checks, "are_rounded", lambda weights: False)
        engine = fp32_engine(model)
        assert run("bench", engine, *words).exit_code == 0
    assert sentence in refusal("bench", engine, *words)


@pytest.mark.parametrize("kind", ["engine", "FP16", "rounded"])
def test_a_quantized_reference_is_taken_where_it_is_wanted(
    kind: str, digits: Digits, lost_manifest: Path, tmp_path: Path
) -> None:
    """The verdict then has the warning that another model is compared."""
    reference = lost_manifest
    if kind == "FP16":
        reference = quantized_elsewhere(digits, tmp_path / "half.onnx")
    elif kind == "rounded":
        reference = rounded(digits, tmp_path / "rounded.onnx")
    result, verdict = bench(digits.engine, reference, digits.test, "--quantized-reference")
    assert result.exit_code == 0
    assert any("The reference is a model with" in warning for warning in verdict["warnings"])
    assert any("built from another model" in warning for warning in verdict["warnings"])
    if kind == "engine":
        assert verdict["accuracy"]["reference"] == verdict["accuracy"]["engine"]


def test_a_request_that_contradicts_itself_is_refused(digits: Digits) -> None:
    """An FP32 reference is not quantized, and a simulation needs one."""
    words = ("--reference", digits.model, "--data", digits.test, "--quantized-reference")
    assert "is in FP32. Leave it out" in refusal("bench", digits.engine, *words, code=2)
    assert "--simulate lowers" in refusal("bench", digits.table, *words, "--simulate", code=2)
