"""Anyone's engine: files that other tools quantized, read, audited and benched without a manifest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from commands import passed, refusal, run
from digits import QUICK, Digits
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, parser

from edgeres.core.artifacts import FOREIGN
from edgeres.core.contract_options import ContractOptions
from edgeres.core.precision import Precision
from edgeres.core.table import load_table
from edgeres.errors import ArtifactError, ConfigError
from edgeres.evaluation.coverage import coverage_checks, foreign_notes
from edgeres.onnx_file import load_onnx
from edgeres.targets.loading import load_any_engine

DIGITS = ContractOptions(preset="digits")

QDQ = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 3, 8, 8] image) => (float[N, 4] logits)
<float s = {0.02}, uint8 z = {0}, int8 wz = {0}, float ws = {0.01}, int8[4, 3, 1, 1] w1 = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12},
 int8[4, 4, 1, 1] w2 = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, float[4, 4] fc = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}>
{
  qi = QuantizeLinear(image, s, z)
  di = DequantizeLinear(qi, s, z)
  dw1 = DequantizeLinear(w1, ws, wz)
  c1 = Conv(di, dw1)
  q1 = QuantizeLinear(c1, s, z)
  d1 = DequantizeLinear(q1, s, z)
  dw2 = DequantizeLinear(w2, ws, wz)
  c2 = Conv(d1, dw2)
  sum = Add(c2, d1)
  pooled = GlobalAveragePool(sum)
  flat = Flatten(pooled)
  logits = MatMul(flat, fc)
}
"""
"""By hand, without names: the second convolution has no Q behind it, and the sum one branch."""


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """The network above."""
    model = parser.parse_model(QDQ)
    onnx.save(model, tmp_path / "hand.onnx")
    return tmp_path / "hand.onnx"


def quantize(digits: Digits, path: Path, **options: Any) -> Path:
    """Writes the digits' model as ONNX Runtime's own quantizer makes it, without metadata."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            images = np.load(digits.train)["images"][:32].astype(np.float32)
            # 8 x 8 to 32 x 32, near enough to what the contract makes.
            large = images.repeat(4, axis=1).repeat(4, axis=2).transpose(0, 3, 1, 2)
            self._batches: Iterator[NDArray[np.float32]] = iter([(large / 255 - 0.5) / 0.5])
            self._input = load_onnx(digits.model).artifact.input.name

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {self._input: batch.astype(np.float32)}

    quantize_static(str(digits.model), str(path), Reader(), **options)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def foreign(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By ONNX Runtime's quantizer: its defaults, with unsigned activations, and in its own form."""
    from onnxruntime.quantization import QuantFormat, QuantType

    folder = tmp_path_factory.mktemp("foreign")
    unsigned = {"activation_type": QuantType.QUInt8}
    return {
        "default": quantize(digits, folder / "default.onnx"),
        "unsigned": quantize(digits, folder / "unsigned.onnx", **unsigned),
        "qoperator": quantize(digits, folder / "qop.onnx", quant_format=QuantFormat.QOperator),
    }


def in_form_of(tool: str, digits: Digits, path: Path) -> Path:
    """Writes the digits' model as Model Optimizer 0.47 or NNCF 3.4 would, by our table's ranges.

    Model Optimizer: signed activations in front of convolutions, pool and the shortcut of a sum,
    none behind a convolution, and float weights behind a QuantizeLinear. NNCF: unsigned activations
    behind a ReLU, both branches of a sum, what slices read, and weights that are stored as integers.
    """
    nncf = tool == "nncf"
    model = onnx.load(digits.model)
    amax = {name: one.amax for name, one in load_table(digits.table).tensors.items()}
    # For what is added to a shortcut that is in float, and has no range in the table.
    largest = max(amax.values())
    initializer = model.graph.initializer
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in initializer}
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    nodes, ready = list[onnx.NodeProto](), set[str]()

    def pair(name: str, limit: NDArray[np.float32], qmax: int, **axis: Any) -> str:
        """Returns a tensor behind Q and DQ, or behind DQ alone where it is stored."""
        if name in ready:
            return f"{name}_dq"
        ready.add(name)
        scale = (limit / qmax).astype(np.float32)
        zero = np.zeros(scale.shape, np.uint8 if qmax == 255 else np.int8)
        quantized = [f"{name}_q", f"{name}_scale", f"{name}_zero"]
        initializer.append(numpy_helper.from_array(scale, quantized[1]))
        initializer.append(numpy_helper.from_array(zero, quantized[2]))
        if nncf and name in weights:
            steps = np.round(weights[name] / scale.reshape(-1, *[1] * (weights[name].ndim - 1)))
            initializer.append(numpy_helper.from_array(steps.astype(np.int8), quantized[0]))
        else:
            inputs = [name, *quantized[1:]]
            nodes.append(helper.make_node("QuantizeLinear", inputs, quantized[:1], **axis))
        nodes.append(helper.make_node("DequantizeLinear", quantized, [f"{name}_dq"], **axis))
        return f"{name}_dq"

    def activation(name: str) -> str:
        unsigned = nncf and made.get(name) == "Relu"
        return pair(name, np.array(amax.get(name, largest)), 255 if unsigned else 127)

    for node in model.graph.node:
        slices = nncf and node.op_type == "Slice" and made[node.input[0]] == "Relu"
        if node.op_type in {"Conv", "GlobalAveragePool"} or slices:
            node.input[0] = activation(node.input[0])
        if node.op_type == "Conv" or (nncf and node.op_type == "Gemm"):
            weight = weights[node.input[1]]
            rows = np.abs(weight).reshape(len(weight), -1).max(axis=1)
            node.input[1] = pair(node.input[1], rows, 127, axis=0)
        for index, name in enumerate(node.input if node.op_type == "Add" else ()):
            # A shortcut that was padded stays in float.
            if made[name] == "Relu" or (nncf and made[name] == "Conv"):
                node.input[index] = activation(name)
        nodes.append(node)
    del model.graph.node[:], model.metadata_props[:]
    model.graph.node.extend(nodes)
    model.opset_import[0].version = 17 if nncf else 19
    onnx.save(model, path)
    return path


@pytest.fixture
def qdq(foreign: dict[str, Path]) -> Path:
    """Q/DQ with unsigned activations."""
    return foreign["unsigned"]


def test_a_file_by_hand_is_read_layer_by_layer(by_hand: Path) -> None:
    """What is quantized in it, and what is not and why."""
    engine = load_any_engine(by_hand, options=replace(DIGITS, input_size=8))
    manifest = engine.manifest
    assert (manifest.target, manifest.precision, manifest.flags) == (
        "onnxruntime",
        Precision.INT8,
        (FOREIGN,),
    )
    assert [(one.op_type, one.precision.value, one.reason) for one in manifest.layers] == [
        ("Conv", "int8", ""),
        ("Conv", "int8", ""),
        ("Add", "fp32", "no DequantizeLinear before c2"),
        ("GlobalAveragePool", "fp32", "no DequantizeLinear before sum"),
        ("MatMul", "fp32", "no DequantizeLinear before flat, fc"),
    ]


def optimized(path: Path, folder: Path) -> onnx.ModelProto:
    """Returns the graph that ONNX Runtime makes of a file."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


def test_what_fell_back_is_named(by_hand: Path) -> None:
    """By ONNX Runtime's own graph: a convolution without Q behind it has no integer kernel."""
    engine = load_any_engine(by_hand, options=replace(DIGITS, input_size=8))
    (note,) = foreign_notes(engine)
    assert note == (
        "hand.onnx has no manifest of edgeres: another tool quantized it. 1 of 3 convolutions and "
        "additions run in INT8 (graph after ONNX Runtime's fusions); in float: Conv of c2 "
        "(quantized, but without an integer kernel in this place); Add of sum (no "
        "DequantizeLinear before c2)."
    )
    (check,) = coverage_checks(engine)
    # Not the addition: what another tool left in float is its choice.
    assert (check.outcome, check.exit_code, check.value) == ("FAIL", 5, 1)
    assert check.reason.startswith(
        "ONNX Runtime computes in float what the file quantizes: 1 of 2 convolutions (graph after "
        "ONNX Runtime's fusions): Conv of c2. Quantize their inputs, weights and outputs"
    )


@pytest.mark.parametrize("form", ["default", "unsigned", "qoperator"])
def test_what_onnx_runtime_quantized(
    form: str, digits: Digits, foreign: dict[str, Path], tmp_path: Path
) -> None:
    """As many layers run in INT8 as ONNX Runtime's own graph has integer operators of the kinds.

    With its defaults, signed activations, it leaves those behind a ReLU in float: what a user of
    it does not see.
    """
    path = foreign[form]
    engine = load_any_engine(path, reference=load_onnx(digits.model).artifact)
    assert engine.manifest.precision is Precision.INT8
    kinds = Counter(layer.op_type for layer in engine.manifest.layers)
    source = Counter(node.op_type for node in onnx.load(digits.model).graph.node)
    assert (kinds["Conv"], kinds["Add"]) == (source["Conv"], source["Add"])
    ran = Counter(node.op_type for node in optimized(path, tmp_path).graph.node)
    integer, total = ran["QLinearConv"] + ran["QLinearAdd"], kinds["Conv"] + kinds["Add"]
    assert (integer < total) is (form == "default")
    (note,) = foreign_notes(engine)
    assert f" {integer} of {total} convolutions and additions run in INT8" in note
    (*failed,) = coverage_checks(engine)
    assert sum(check.value for check in failed) == kinds["Conv"] - ran["QLinearConv"]


def test_bench_and_compare_take_it_beside_ours(qdq: Path, digits: Digits, tmp_path: Path) -> None:
    """One verdict each, on the same images, and one table."""
    line = f"{{engine}} --reference {{model}} --data {{test}} {QUICK} --json"
    foreign = passed(*digits.words(f"bench {line}", engine=qdq))
    ours = passed(*digits.words(f"bench {line}"))
    verdict = json.loads(foreign)
    assert verdict["accuracy"]["samples"] == 100
    assert verdict["accuracy"]["engine"]["correct"] > 85
    assert any("another tool quantized it" in warning for warning in verdict["warnings"])
    (tmp_path / "foreign.json").write_text(foreign)
    (tmp_path / "ours.json").write_text(ours)
    table = passed("compare", tmp_path / "foreign.json", tmp_path / "ours.json")
    assert "foreign" in table
    assert "ours" in table


def test_other_quantizers_are_audited_and_compared_in_one_table(
    digits: Digits, tmp_path: Path
) -> None:
    """NNCF's runs on the CPU, but for sums of padded shortcuts; Model Optimizer's does not.

    It is made for TensorRT, which fuses what stands behind a convolution.
    """
    ran = {}
    for tool in ("modelopt", "nncf"):
        path = in_form_of(tool, digits, tmp_path / f"{tool}.onnx")
        engine = load_any_engine(path, reference=load_onnx(digits.model).artifact)
        assert engine.manifest.precision is Precision.INT8
        kinds = Counter(node.op_type for node in optimized(path, tmp_path).graph.node)
        ran[tool] = kinds["QLinearConv"] + kinds["QLinearAdd"]
        (note,) = foreign_notes(engine)
        assert f". {ran[tool]} of 28 convolutions and additions run in INT8" in note
        line = digits.words(f"bench {path} --reference {{model}} --data {{test}} {QUICK} --json")
        verdict = run(*line).stdout
        assert json.loads(verdict)["accuracy"]["engine"]["correct"] >= 98
        (tmp_path / f"{tool}.json").write_text(verdict)
    assert ran["modelopt"] == 0
    assert ran["nncf"] == 26
    ours = f"bench {{engine}} --reference {{model}} --data {{test}} {QUICK} --json"
    (tmp_path / "ours.json").write_text(passed(*digits.words(ours)))
    names = ("modelopt", "nncf", "ours")
    table = passed("compare", *(tmp_path / f"{name}.json" for name in names))
    assert all(name in table for name in names)


def test_inspect_shows_what_it_runs(by_hand: Path, digits: Digits) -> None:
    """For people and as JSON; an FP32 model stays what it was."""
    raw = json.loads(passed("inspect", by_hand, "--json"))
    assert raw["precision"] == "int8"
    assert [node["ran"] for node in raw["audit"]["nodes"]] == ["int8", "fp32", "fp32"]
    shown = " ".join(passed("inspect", by_hand).split())
    assert "ONNX model in int8, without a manifest of edgeres" in shown
    assert "Conv of c2" in shown
    assert json.loads(passed("inspect", digits.model, "--json"))["audit"] is None


def test_predict_takes_it_by_the_contract_of_the_reference(
    qdq: Path, digits: Digits, tmp_path: Path
) -> None:
    """Or of options; without either it is refused with both ways."""
    from PIL import Image

    picture = tmp_path / "a.png"
    Image.fromarray(np.load(digits.test)["images"][0]).save(picture)
    words = ("predict", qdq, picture, "--json")
    by_reference = json.loads(passed(*words, "--reference", digits.model))
    assert by_reference == json.loads(passed(*words, "--preset", "digits"))
    said = refusal(*words, code=2)
    assert "carries no preprocessing contract" in said
    assert "--preset" in said


def test_fp32_and_fp16_are_named_so(digits: Digits, tmp_path: Path) -> None:
    """By their weights and casts."""
    assert load_any_engine(digits.model).manifest.precision is Precision.FP32
    model = onnx.load(digits.model)
    weights = next(t for t in model.graph.initializer if len(t.dims) == 4)
    half = numpy_helper.from_array(numpy_helper.to_array(weights).astype(np.float16), "half")
    cast = helper.make_node("Cast", ["half"], [weights.name], to=TensorProto.FLOAT)
    model.graph.initializer.remove(weights)
    model.graph.initializer.append(half)
    model.graph.node.insert(0, cast)
    onnx.save(model, tmp_path / "half.onnx")
    assert load_any_engine(tmp_path / "half.onnx").manifest.precision is Precision.FP16


def test_another_head_than_the_reference_s_is_refused(digits: Digits, tmp_path: Path) -> None:
    """Probabilities and logits cannot be compared."""
    model = onnx.load(digits.model)
    output = model.graph.output[0].name
    model.graph.node.append(helper.make_node("Softmax", [output], ["probabilities"]))
    model.graph.output[0].name = "probabilities"
    onnx.save(model, tmp_path / "soft.onnx")
    line = "bench {soft} --reference {model} --data {test}"
    said = refusal(*digits.words(line, soft=tmp_path / "soft.onnx"), code=6)
    assert "soft.onnx ends in Softmax, digits.onnx on onnxruntime-cpu ends in logits" in said


def test_what_needs_no_trust_and_what_does(digits: Digits, tmp_path: Path) -> None:
    """A graph is no code; a plan is."""
    with pytest.raises(ConfigError, match="which is run without"):
        load_any_engine(digits.model, trust=True)
    plan = tmp_path / "a.plan"
    plan.write_bytes(b"ftrt plan")
    with pytest.raises(ArtifactError, match="has no manifest"):
        load_any_engine(plan, options=DIGITS)
    with pytest.raises(ConfigError, match="has no manifest, so its preprocessing is not known"):
        load_any_engine(plan, trust=True)
    trusted = load_any_engine(plan, trust=True, options=DIGITS).manifest
    assert (trusted.target, trusted.input.shape) == ("tensorrt", (None, 3, 32, 32))


def test_a_manifest_is_not_passed_by(digits: Digits, tmp_path: Path) -> None:
    """An engine that was changed since is refused, although ONNX Runtime would run it."""
    path = tmp_path / "a.onnx"
    path.write_bytes(digits.model.read_bytes())
    (tmp_path / "a.onnx.json").write_bytes(
        (digits.engine.parent / "digits.int8.onnx.json").read_bytes()
    )
    with pytest.raises(ArtifactError, match="was changed or truncated after it was built"):
        load_any_engine(path)


def test_a_fixed_batch_is_opened(by_hand: Path, digits: Digits) -> None:
    """The graph takes any batch; only its interface was fixed."""
    model = onnx.load(by_hand)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, by_hand)
    engine = load_any_engine(by_hand, options=replace(DIGITS, input_size=8))
    assert engine.manifest.batch_limits is None


def test_a_quantization_that_depends_on_the_batch_is_refused(
    digits: Digits, tmp_path: Path
) -> None:
    """ONNX Runtime's dynamic quantization gives an image other logits in other company."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(str(digits.model), str(tmp_path / "dynamic.onnx"))
    result = run("predict", tmp_path / "dynamic.onnx", digits.test)
    assert result.exit_code == 1
    assert "DynamicQuantizeLinear, whose scale is that of the whole batch" in result.stderr


@pytest.mark.parametrize("kind", ["Gemm", "MatMul"])
def test_a_classifier_alone_that_fell_back_is_named(
    kind: str, qdq: Path, digits: Digits, tmp_path: Path
) -> None:
    """Without Q behind it and with a bias in float it has no integer kernel."""
    model = onnx.load(qdq)
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    last = makers[graph.output[0].name]
    product = makers[makers[last.input[0]].input[0]]
    assert (last.op_type, product.op_type) == ("DequantizeLinear", "Gemm")
    weight = makers[product.input[1]]
    bias = np.zeros(10, np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(bias, "bias"))
    product.input[2] = "bias"
    product.output[0] = graph.output[0].name
    for node in (makers[last.input[0]], last):
        graph.node.remove(node)
    if kind == "MatMul":
        tensor = next(t for t in graph.initializer if t.name == weight.input[0])
        turned = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor).T)
        tensor.CopyFrom(onnx.numpy_helper.from_array(turned, tensor.name))
        name, output = product.name, product.output[0]
        inputs = list(product.input[:2])
        product.CopyFrom(onnx.helper.make_node("MatMul", inputs, ["made"], name=name))
        graph.node.append(onnx.helper.make_node("Add", ["made", "bias"], [output]))
    path = tmp_path / "classifier.onnx"
    onnx.save(model, path)
    engine = load_any_engine(path, reference=load_onnx(digits.model).artifact)
    assert engine.manifest.precision is Precision.INT8
    ran = Counter(node.op_type for node in optimized(path, tmp_path).graph.node)
    assert (ran["Gemm"], ran["QGemm"]) == (1, 0)
    (check,) = coverage_checks(engine)
    assert (check.outcome, check.exit_code, check.value) == ("FAIL", 5, 1)
    assert check.reason.startswith(
        "ONNX Runtime computes in float what the file quantizes: 1 of 1 product of matrices "
        f"(graph after ONNX Runtime's fusions): {product.name}. Quantize"
    )
