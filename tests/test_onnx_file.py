"""ONNX files come back as they were described, or are refused with what to do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from networks import network
from onnx import TensorProto, helper

from edgeres import __version__, onnx_file
from edgeres.core.artifacts import OnnxArtifact, TensorSpec
from edgeres.core.contract import preset
from edgeres.errors import ArtifactError
from edgeres.input_files import InputKind, read_bytes
from edgeres.onnx_file import load_model, load_onnx, save_model
from edgeres.serialization import to_json

DESCRIBED = OnnxArtifact(
    path=Path("nowhere"),
    sha256="",
    input=TensorSpec(name="image", shape=(None, 3, 16, 16)),
    output=TensorSpec(name="logits", shape=(None, 5)),
    contract=preset("imagenet-caffe"),
    classes=("é", "b", "c", "d", "e"),
    architecture="resnet20",
    checkpoint_sha256="c" * 64,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a model may be written."""
    return tmp_path / "model.onnx"


def test_what_is_saved_comes_back(path: Path) -> None:
    """Contract, classes, architecture and checkpoint travel in the file."""
    saved = save_model(path, network("identity"), DESCRIBED)
    assert saved.path == path
    assert saved.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    loaded = load_onnx(path)
    assert loaded.artifact == saved
    assert loaded.proto.graph == load_model(path).graph == network("identity").graph


def test_a_file_is_hashed_by_the_bytes_that_were_parsed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read: a file that is replaced in between cannot have another model's hash."""
    save_model(path, network("identity"), DESCRIBED)
    reads = []

    def counted(opened: Path, kind: InputKind) -> bytes:
        reads.append(opened)
        return read_bytes(opened, kind)

    monkeypatch.setattr(onnx_file, "read_bytes", counted)
    loaded = load_onnx(path)
    assert reads == [path]
    assert loaded.artifact.sha256 == hashlib.sha256(loaded.proto.SerializeToString()).hexdigest()


def test_the_version_that_wrote_it_stands_in_the_file(path: Path) -> None:
    """Metadata keys have one prefix, values are JSON, and old metadata does not linger."""
    model = network("identity")
    model.metadata_props.add(key="edgeres.contract", value='{"old": 1}')
    save_model(path, model, DESCRIBED)
    found = {prop.key: json.loads(prop.value) for prop in load_model(path).metadata_props}
    assert found["edgeres.version"] == __version__
    assert found["edgeres.contract"] == to_json(preset("imagenet-caffe"))


def test_a_foreign_model_has_no_contract(path: Path) -> None:
    """A file exported elsewhere is described by its shapes alone."""
    path.write_bytes(network("identity").SerializeToString())
    found = load_onnx(path).artifact
    assert (found.contract, found.classes, found.architecture) == (None, (), None)
    assert found.input == TensorSpec(name="image", shape=(None, 3, 16, 16))
    assert found.num_classes == 5


def test_initializers_that_are_inputs_too_do_not_count(path: Path) -> None:
    """Old exporters list every weight as an input; the network still has one."""
    model = network("identity")
    for tensor in model.graph.initializer:
        declared = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(declared)
    path.write_bytes(model.SerializeToString())
    assert load_onnx(path).artifact.input.name == "image"


def _two_inputs(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))


def _two_outputs(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [1]))


def _features(model: onnx.ModelProto) -> None:
    declared = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, ["N", 8, 1, 1])
    model.graph.output[0].CopyFrom(declared)


def _untyped(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.Clear()


def _half(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def _no_nodes(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


def _no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def _damaged_metadata(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="edgeres.contract", value="{")


def _other_contract(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="edgeres.contract", value='{"size": 224}')


REFUSED: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "two inputs": (_two_inputs, r"inputs \['image', 'mask'\].* one of each"),
    "two outputs": (_two_outputs, r"outputs \['logits', 'pooled'\].* one of each"),
    "no logits": (_features, r"to \(None, 8, 1, 1\); .* from \(N, 3, H, W\) to \(N, classes\)"),
    "no type": (_untyped, r"maps \(None, 3, 16, 16\) to \(\); edgeres takes classifiers"),
    "fp16": (_half, "maps float16 to float32; .* Export the model in FP32"),
    "empty graph": (_no_nodes, "its graph is empty. Make one with export"),
    "no opset": (_no_opset, "names no version of ONNX's operators: it is cut off"),
    "damaged metadata": (_damaged_metadata, "damaged edgeres metadata .* Export the model again"),
    "another contract": (
        _other_contract,
        r"has a damaged contract \(resize: missing\)\. Export the model again",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_classifier_is_refused(
    path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    """Each way of not being a classifier that edgeres takes has its sentence."""
    model = network("identity")
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match=message):
        load_onnx(path)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n", b"not a model", b"\x00" * 64], ids=["png", "text", "zeros"]
)
def test_another_kind_of_file_is_refused(path: Path, content: bytes) -> None:
    """What is no protobuf, or an empty one, is called no ONNX file or model."""
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"is no ONNX (file|model).* Make one with export"):
        load_model(path)


def test_an_empty_file_is_refused(path: Path) -> None:
    """Zero bytes are a valid, empty protobuf, and no model."""
    path.touch()
    with pytest.raises(ArtifactError, match="is no ONNX model: its graph is empty"):
        load_model(path)


def test_a_file_that_is_cut_off_anywhere_is_refused(path: Path) -> None:
    """No prefix of a model passes for one."""
    content = network("identity").SerializeToString()
    for length in (1, 2, 10, len(content) // 2, len(content) - 7, len(content) - 6):
        path.write_bytes(content[:length])
        with pytest.raises(ArtifactError, match=r"no ONNX (file|model)|cut off"):
            load_model(path)


def test_a_file_that_is_not_there_is_refused(path: Path) -> None:
    """The path is named, with the system's reason."""
    with pytest.raises(ArtifactError, match=r"model.onnx cannot be read: No such file"):
        load_model(path)
    with pytest.raises(ArtifactError, match="cannot be read: Is a directory"):
        load_model(path.parent)


def test_weights_in_a_second_file_are_refused(path: Path) -> None:
    """The hash that ties table and engine to a model must cover its weights."""
    onnx.save(
        network("identity"),
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    with pytest.raises(
        ArtifactError, match=r"'stem_w' and other weights .* onnx\.save\(onnx\.load"
    ):
        load_model(path)


def test_a_refused_save_leaves_the_old_file(path: Path) -> None:
    """A folder that is not there is an error, and nothing else is touched."""
    save_model(path, network("identity"), DESCRIBED)
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match="absent"):
        save_model(path.parent / "absent" / "model.onnx", network("identity"), DESCRIBED)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("kind", [127, 2**31 - 1, -1])
def test_a_kind_of_number_that_is_not_known_is_refused(path: Path, kind: int) -> None:
    """Of the image tensor; the message has what stands there instead of a number's kind."""
    model = network("identity")
    model.graph.input[0].type.tensor_type.elem_type = kind
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="undefined"):
        load_onnx(path)


@pytest.mark.parametrize("count", [0, 1, 90, 20_000])
def test_a_file_written_tensor_by_tensor_is_protobufs_own(path: Path, count: int) -> None:
    """Byte for byte, with a length of the graph in one to three bytes, and fields of every kind."""
    model = network("identity")
    model.doc_string, model.producer_version = "é" * 3, "2"
    model.functions.add(name="f", domain="d", input=["x"], output=["x"])
    model.graph.doc_string = "text"
    values = helper.make_tensor("values", TensorProto.FLOAT, [count], [0.5] * count)
    model.graph.initializer.append(values)
    model.graph.quantization_annotation.add(tensor_name="x")
    saved = save_model(path, model, DESCRIBED)
    assert path.read_bytes() == model.SerializeToString()
    assert saved.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert onnx.load_model(path) == model
