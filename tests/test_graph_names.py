"""What quantization adds never takes a name that a graph has: the user's tensors are renamed first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import NAMES, images, logits_of, network
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeres.calibration.calibrate import calibrate
from edgeres.calibration.observe import calibrated_tensors, open_observation
from edgeres.core.contract import preset
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import CalibrationRequest
from edgeres.core.table import CalibrationTable
from edgeres.errors import ArtifactError
from edgeres.graph_names import ADDED, free_added_names
from edgeres.onnx_file import LoadedModel, load_onnx
from edgeres.quantization.fp16.computed import computed_in_fp32
from edgeres.quantization.graph import view
from edgeres.quantization.lowering import float_network
from edgeres.quantization.parameters import parameters_of, with_parameters
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.targets.onnxruntime.quantize import quantize_for_cpu
from edgeres.targets.onnxruntime.strides import thinned_out


@dataclass(frozen=True)
class Images:
    """A batch as calibration takes it."""

    images: NDArray[np.float32]

    @property
    def hashes(self) -> tuple[str, ...]:
        """One for each image."""
        return tuple(f"{value:016x}" for value in range(len(self.images)))


def defined(model: onnx.ModelProto) -> Counter[str]:
    """Returns how often each tensor of a model gets a value."""
    graph = model.graph
    values = [*graph.initializer, *graph.input]
    return Counter(
        [value.name for value in values] + [o for n in graph.node for o in n.output if o]
    )


def loaded(path: Path, model: onnx.ModelProto) -> LoadedModel:
    """Returns a model as every command reads it."""
    path.write_bytes(model.SerializeToString())
    return load_onnx(path)


def table_of(model: LoadedModel) -> CalibrationTable:
    """Returns a table by method max, made as `edgeres calibrate` makes it."""
    config = CalibrationRequest(method=Method.MAX)
    batches = [Images(images(8))]
    return calibrate(model, batches, config, contract=preset("cifar"), data="images")


def all_lowered(model: LoadedModel, table: CalibrationTable) -> dict[str, onnx.ModelProto]:
    """Returns every form that a model takes on its way to an engine."""
    graph = view(model.proto)
    convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
    trained = {node.name: parameters_of(graph, node) for node in convolutions}
    observation = open_observation(thinned_out(model.proto), graph, calibrated_tensors(graph))
    outputs = [helper.make_tensor_value_info(n, 1, None) for n in observation.outputs]
    return {
        "cpu": quantize_for_cpu(model, table).model,
        "tensorrt": quantize_for_tensorrt(model, table).model,
        "fp16": float_network(model, Precision.FP16).model,
        "computed": computed_in_fp32(float_network(model, Precision.FP16).model),
        "recovered": with_parameters(graph, trained).model,
        "thinned": thinned_out(model.proto),
        "observed": onnx.ModelProto(
            graph=onnx.GraphProto(
                node=[helper.make_node("Identity", [v.name], [v.name]) for v in outputs]
            )
        ),
    }


def added_names(name: str, folder: Path) -> set[str]:
    """Returns every name that any stage adds to a network without collisions."""
    plain = loaded(folder / "plain.onnx", network(name))
    forms = all_lowered(plain, table_of(plain))
    own = set(defined(view(plain.proto).model))
    return {n for model in forms.values() for n in defined(model)} - own


def with_factors(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Returns a network whose logits are multiplied by a constant of each name, one by one."""
    graph = model.graph
    last = next(node for node in graph.node if "logits" in node.output)
    last.output[0] = "before"
    for index, name in enumerate(names):
        # Every second one is a quotient, so that the product of hundreds stays finite.
        value = np.array((1 + index / 97) ** (-1) ** index, np.float32)
        graph.initializer.append(numpy_helper.from_array(value, name))
        graph.node.append(helper.make_node("Mul", [last.output[0], name], [f"product{index}"]))
        last = graph.node[-1]
    last.output[0] = "logits"
    onnx.checker.check_model(model)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_constants_of_every_added_name_keep_their_values(name: str, tmp_path: Path) -> None:
    """The network with them is lowered as the one whose constants have harmless names.

    The reference is the same network with other names: tables and logits are equal bit for bit.
    """
    names = sorted(added_names(name, tmp_path))
    assert len(names) > 20
    plain = loaded(
        tmp_path / "a.onnx", with_factors(network(name), [f"factor{n}" for n in range(len(names))])
    )
    colliding = loaded(tmp_path / "b.onnx", with_factors(network(name), names))
    table, other = table_of(plain), table_of(colliding)
    assert other.tensors == table.tensors
    expected, found = all_lowered(plain, table), all_lowered(colliding, other)
    for form, model in found.items():
        assert set(defined(model).values()) == {1}, form
    for form in ("cpu", "tensorrt", "recovered", "thinned"):
        np.testing.assert_array_equal(
            logits_of(found[form], images(4, seed=1)), logits_of(expected[form], images(4, seed=1))
        )


def test_the_fault_is_found_where_names_are_not_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the renaming the constants of these names lose their values."""
    names = sorted(added_names("identity", tmp_path))
    monkeypatch.setattr("edgeres.onnx_file.free_added_names", lambda path, model: None)
    model = loaded(tmp_path / "b.onnx", with_factors(network("identity"), names))
    lowered = view(model.proto)
    assert any(ADDED.fullmatch(t.rpartition("/")[2]) for t in lowered.constants)
    with pytest.raises(Exception, match=r"scale|SSA|exist|defined|broadcast|edgeres|Duplicate"):
        all_lowered(model, table_of(model))


@pytest.mark.parametrize("name", NAMES)
def test_a_network_without_collisions_keeps_its_names(name: str, tmp_path: Path) -> None:
    """Its engines stay byte for byte what they were."""
    model = network(name)
    before = model.SerializeToString(deterministic=True)
    free_added_names(tmp_path, model)
    assert model.SerializeToString(deterministic=True) == before


def test_a_name_like_an_added_one_stays_where_nothing_has_its_base() -> None:
    """Only what collides is renamed."""
    model = with_factors(network("identity"), ["camera/scale", "image/scale", "image/level"])
    free_added_names(Path("m.onnx"), model)
    names = {tensor.name for tensor in model.graph.initializer}
    assert {"camera/scale", "image/scale_", "image/level"} <= names
    assert "image/scale" not in names


def test_value_info_activations_and_subgraphs_are_renamed_alike() -> None:
    """A name changes wherever it stands, and the new one is free too."""
    model = with_factors(network("identity"), ["image/q", "image/q_"])
    graph = model.graph
    graph.value_info.append(helper.make_tensor_value_info("product0", TensorProto.FLOAT, None))
    for names in (graph.node[-2].output, graph.node[-1].input):
        names[0] = "image/u8"
    graph.value_info[0].name = "image/u8"
    body = helper.make_graph(
        [helper.make_node("Mul", ["image/u8", "image/scale"], ["stem/dq1"])],
        "body",
        [],
        [helper.make_tensor_value_info("stem/dq1", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(2, np.float32), "image/scale")],
    )
    graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    graph.node.append(
        helper.make_node("If", ["condition"], ["logits"], then_branch=body, else_branch=body)
    )
    graph.node[-2].output[0] = "product1"
    before = logits_of(model, images(2))
    free_added_names(Path("m.onnx"), model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(logits_of(model, images(2)), before)
    text = model.SerializeToString()
    assert not any(f"{word}".encode() + b'"' in text for word in ("image/scale", "stem/dq1"))
    assert {"image/q_", "image/q__"} <= {tensor.name for tensor in graph.initializer}
    assert graph.value_info[0].name == "image/u8_"


def test_an_operator_and_its_tensor_may_share_a_name(tmp_path: Path) -> None:
    """As in graphs that are written by hand: each adds names of its own."""
    proto = network("two-layer head")
    for node in proto.graph.node:
        node.name = node.output[0]
    model = loaded(tmp_path / "m.onnx", proto)
    unnamed = loaded(tmp_path / "n.onnx", network("two-layer head"))
    for form, lowered in all_lowered(model, table_of(model)).items():
        assert set(defined(lowered).values()) == {1}, form
    np.testing.assert_array_equal(
        logits_of(quantize_for_cpu(model, table_of(model)).model, images(2)),
        logits_of(quantize_for_cpu(unnamed, table_of(unnamed)).model, images(2)),
    )


def test_an_operator_of_an_added_name_is_renamed(tmp_path: Path) -> None:
    """Runtimes refuse two operators of one name."""
    model = network("identity")
    model.graph.node[0].name, model.graph.node[1].name = "image/fp16", "image/u8"
    read = loaded(tmp_path / "m.onnx", model)
    assert [node.name for node in read.proto.graph.node[:2]] == ["image/fp16_", "image/u8_"]
    for form, lowered in all_lowered(read, table_of(read)).items():
        names = Counter(node.name for node in lowered.graph.node if node.name)
        assert set(names.values()) <= {1}, form


@pytest.mark.parametrize("side", ["input", "output"])
def test_an_input_or_output_of_such_a_name_is_refused(side: str, tmp_path: Path) -> None:
    """Its name is the caller's; the message has another one."""
    model = network("identity")
    value = getattr(model.graph, side)[0]
    old, new = value.name, "entry/scale"
    value.name = new
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    with pytest.raises(ArtifactError, match=r"called 'entry/scale'.*such as 'entry_scale'"):
        loaded(tmp_path / "m.onnx", model)
