"""The typed file is what a plan is built from, is valid, and gives the simulation's labels."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from commands import passed, refusal
from digits import Digits
from networks import NAMES, images, network
from tables import table_from_images

from edgeres.core.artifacts import EngineArtifact, load_engine
from edgeres.core.builder_options import TensorRTOptions
from edgeres.core.contract import Contract
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.errors import BuildError, ConfigError
from edgeres.onnx_file import load_onnx
from edgeres.quantization.graph import view
from edgeres.quantization.lowering import ALL_INTEGER
from edgeres.targets.base import find_target, lowerings

TARGET = find_target("onnx")
BUILD = "build-engine {model} --calibration {table} --target onnx -o {out}"
BENCH = "bench {engine} --reference {model} --data {test} --samples 100 --json"


def built(name: str, request: BuildRequest, folder: Path) -> EngineArtifact:
    """Returns the file of a tiny network."""
    onnx.save(network(name), folder / "m.onnx")
    model = load_onnx(folder / "m.onnx")
    table = table_from_images(view(model.proto), images(4))
    lowered = TARGET.lower(model, request, table, None, ALL_INTEGER)
    return TARGET.build(
        lowered, request, Contract(height=16, width=16), output=folder / "a.qdq.onnx"
    )


def requests() -> list[BuildRequest]:
    """Returns every type that a file can have."""
    return [
        BuildRequest(target="onnx", precision=Precision.FP32),
        BuildRequest(target="onnx", precision=Precision.FP16),
        BuildRequest(target="onnx", float_layers=Precision.FP16),
        BuildRequest(target="onnx", float_layers=Precision.FP32),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_valid_and_onnx_runtime_reads_it(name: str, tmp_path: Path) -> None:
    """By ONNX's full check and by ONNX Runtime, whose logits differ by FP16's roundings alone."""
    x = images(4, 4)
    for request in requests():
        engine = built(name, request, tmp_path)
        onnx.checker.check_model(onnx.load(engine.path), full_check=True)
        with TARGET.open(engine) as runner:
            found = runner.infer(x)
        session = onnxruntime.InferenceSession(engine.path, providers=["CPUExecutionProvider"])
        expected = session.run(["logits"], {"image": x})[0]
        spread = np.abs(expected - expected.mean(axis=0)).max()
        assert np.abs(found - expected).max() < 0.2 * spread


@pytest.mark.parametrize("floats", ["fp16", "fp32"])
def test_bench_gives_the_simulations_accuracy(floats: str, digits: Digits, tmp_path: Path) -> None:
    """The same labels, logits and errors, image by image; no latency, which a plan would have."""
    path = tmp_path / "digits.qdq.onnx"
    passed(*digits.words(BUILD + " --float-layers " + floats, out=path))
    own = json.loads(passed(*digits.words(BENCH, engine=path)))
    line = BENCH + " --simulate --float-layers " + floats
    simulated = json.loads(passed(*digits.words(line, engine=digits.table)))
    assert own["accuracy"] == simulated["accuracy"]
    assert (own["latency"], own["provenance"]["target"]) == (None, "onnx")


@pytest.mark.rtx
@pytest.mark.parametrize("precision", ["int8", "int8 --float-layers fp32", "fp16", "fp32"])
def test_a_plan_is_built_from_these_bytes(
    precision: str, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What NVIDIA's parser is given for a plan is the file, byte for byte."""
    import tensorrt_rtx

    given: list[bytes] = []
    real = tensorrt_rtx.OnnxParser

    class Parser:
        def __init__(self, *arguments: object) -> None:
            self._parser = real(*arguments)

        def parse(self, model: bytes) -> bool:
            given.append(model)
            return bool(self._parser.parse(model))

        def __getattr__(self, name: str) -> object:
            return getattr(self._parser, name)

    monkeypatch.setattr(tensorrt_rtx, "OnnxParser", Parser)
    table = [] if precision == "fp32" else ["--calibration", digits.table]
    path, plan = tmp_path / "digits.qdq.onnx", tmp_path / "digits.plan"
    common = ["build-engine", digits.model, *table, "--precision", *precision.split()]
    passed(*common, "--target", "onnx", "-o", path)
    passed(*common, "--target", "tensorrt-rtx", "--compute-capability", "8.6", "-o", plan)
    assert given == [path.read_bytes()]


def test_the_file_carries_contract_classes_and_manifest(digits: Digits, tmp_path: Path) -> None:
    """In its metadata, as the model has them, and beside it."""
    path = tmp_path / "digits.qdq.onnx"
    passed(*digits.words(BUILD, out=path))
    own, model = load_onnx(path).artifact, load_onnx(digits.model).artifact
    assert (own.contract, own.classes) == (model.contract, model.classes)
    manifest = load_engine(path).manifest
    assert (manifest.target, manifest.precision) == ("onnx", Precision.INT8)
    assert manifest.model_sha256 == model.sha256
    assert {layer.precision for layer in manifest.layers} == {Precision.INT8, Precision.FP16}


@pytest.mark.parametrize(
    ("request_", "versions"),
    [
        (requests()[0], {"TensorRT 8.6": [], "TensorRT 10.3 to 10.16": ["--stronglyTyped"], "TensorRT 11": []}),
        (requests()[1], {"TensorRT 8.6": ["--fp16"], "TensorRT 10.3 to 10.16": ["--stronglyTyped"], "TensorRT 11": []}),
        (requests()[2], {"TensorRT 10.3 to 10.16": ["--stronglyTyped"], "TensorRT 11": []}),
        (requests()[3], {"TensorRT 8.6": ["--int8"], "TensorRT 10.3 to 10.16": ["--stronglyTyped"], "TensorRT 11": []}),
    ],
)  # fmt: skip
def test_only_valid_trtexec_lines_are_named(
    request_: BuildRequest, versions: dict[str, list[str]], tmp_path: Path
) -> None:
    """FP16 Q/DQ is opset 19, which 8.6 does not read; 11 has no flags for types."""
    manifest = built("identity", request_, tmp_path).manifest
    lines = dict(line.split(": ", 1) for line in manifest.commands)
    assert lines.keys() == versions.keys()
    path = tmp_path / "a.qdq.onnx"
    for version, flags in versions.items():
        words = shlex.split(lines[version])
        assert words[:2] == ["trtexec", f"--onnx={path}"]
        assert "--optShapes=image:1x3x16x16" in words
        assert [word for word in words[3:] if "Shapes" not in word] == flags
    opset = onnx.load(path).opset_import[0].version
    assert opset == (19 if request_ == requests()[2] else 17)


def test_a_static_batch_has_no_shapes(tmp_path: Path) -> None:
    """Trtexec refuses them for a network without a dynamic dimension."""
    model = network("identity")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "m.onnx")
    loaded, request = load_onnx(tmp_path / "m.onnx"), requests()[0]
    lowered = TARGET.lower(loaded, request, None, None, ALL_INTEGER)
    engine = TARGET.build(
        lowered, request, Contract(height=16, width=16), output=tmp_path / "a.onnx"
    )
    assert all("Shapes" not in line for line in engine.manifest.commands)


def test_what_belongs_to_a_builder_is_refused(digits: Digits, tmp_path: Path) -> None:
    """By its name, and before anything is read; so are limits that need a latency."""
    with pytest.raises(ConfigError, match=r"--workspace, --compute-capability 8.6: for a builder"):
        TARGET.check_request(
            BuildRequest(
                target="onnx",
                compute_capability="8.6",
                options=TensorRTOptions(workspace_mib=5),
            )
        )
    path = tmp_path / "digits.qdq.onnx"
    passed(*digits.words(BUILD, out=path))
    said = refusal(*digits.words(BENCH + " --min-speedup 2", engine=path), code=2)
    assert said.startswith(f"--min-speedup times an engine, and {path} is the file that one is")


def test_a_network_that_the_checker_refuses_is_not_written(tmp_path: Path) -> None:
    """Whatever went wrong on the way, no file stands there."""
    onnx.save(network("identity"), tmp_path / "m.onnx")
    model, request = load_onnx(tmp_path / "m.onnx"), requests()[0]
    lowered = TARGET.lower(model, request, None, None, ALL_INTEGER)
    lowered.model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 77
    with pytest.raises(BuildError, match="ONNX's checker refuses the fp32 form"):
        TARGET.build(lowered, request, Contract(height=16, width=16), output=tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_both_lowerings_are_listed_once_in_their_order() -> None:
    """The target shares TensorRT's; tables list the measured one first."""
    assert [lowering.name for lowering in lowerings()] == ["onnxruntime", "tensorrt"]


def test_names_are_unique_and_paths() -> None:
    """Polygraphy and Netron show tensors by the layer that they belong to."""
    graph = view(network("bottleneck"))
    table = table_from_images(graph, images(4))
    model = TARGET.lowering().lower(graph, table, table.method)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    own = {node.name for node in graph.nodes} | set(graph.producers) | {graph.input}
    assert all(
        name in own or name.rsplit("/", 2)[0] in own or name.rsplit("/", 1)[0] in own
        for name in names
    )
