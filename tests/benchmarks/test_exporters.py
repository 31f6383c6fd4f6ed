"""A network written by torch's exporters, and changed as other tools do, is our own export of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import helper

pytest.importorskip("torch", reason="torch, which exports the networks, is not installed")

from benchmarks.exporter_forms import Form, forms
from benchmarks.exporters import Compared, compare, structure_of
from edgeres.networks.registry import find_spec
from edgeres.normalization import steps

NARROW = replace(find_spec("resnet18"), base_width=8, num_classes=10, input_size=32)
"""ResNet-18 in all but its width and image."""

CHOSEN = (
    "TorchScript, opset 13, as traced, any batch",
    "TorchScript, opset 20, folded, batch of 4",
    "TorchScript, preprocessing inside",
    "as TensorFlow's converter",
    "softmax",
    "opset 11, as traced, batch of 1",
)
"""The forms of `python -m benchmarks.exporters` that have least in common."""

WITH_ONNXSCRIPT = (
    "torch.export, opset 18, as traced, any batch",
    "torch.export, channels last",
)


def named(*names: str) -> list[Form]:
    """Returns forms by their names."""
    known = {form.name: form for form in forms()}
    return [known[name] for name in names]


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The exporters' own words are no warnings of ours."""
    with caplog.at_level(logging.ERROR):
        yield


@pytest.mark.usefixtures("quiet")
def test_what_torch_and_other_tools_write_is_our_own_export(tmp_path: Path) -> None:
    """By Q/DQ graph, layers in INT8 and logits."""
    found = list(compare(NARROW, named(*CHOSEN), tmp_path))
    assert [str(one) for one in found if not one.is_equal] == []
    assert {one.coverage for one in found} == {(28, 28)}


@pytest.mark.usefixtures("quiet")
@pytest.mark.filterwarnings("ignore")
def test_what_torchs_exporter_of_today_writes_is_our_own_export(tmp_path: Path) -> None:
    """One bias of zeros for all convolutions of a width, and features gathered by their index."""
    pytest.importorskip("onnxscript", reason="onnxscript, which torch exports by, is not installed")
    found = list(compare(NARROW, named(*WITH_ONNXSCRIPT), tmp_path))
    assert [str(one) for one in found if not one.is_equal] == []


@pytest.mark.usefixtures("quiet")
def test_a_network_that_is_not_normalized_is_not_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison finds batch normalisation that stayed."""
    monkeypatch.setattr(steps, "fold_batch_norms", lambda model, weights: 0)
    (found,) = compare(NARROW, named(CHOSEN[0]), tmp_path)
    assert (found.same_graph, found.is_equal) == (False, False)
    assert str(found).startswith(f"{CHOSEN[0]}: NOT EQUAL, graph another, INT8 ")


def test_a_refusal_is_no_failure() -> None:
    """It is printed with its reason."""
    assert str(Compared(name="x", refusal="no.")) == "x: refused: no."


def test_a_structure_has_no_names_and_no_order() -> None:
    """But operators, attributes, shapes and wires."""
    text = "net (float[N, 2] x) => (float[N, 2] y) <float[2] k = {1, 2}> { %s }"
    lines = ["a = Relu(x) b = Add(a, k) y = Mul(b, x)", "q = Relu(x) r = Add(q, k) y = Mul(r, x)"]
    other = "a = Relu(x) b = Add(a, k) y = Mul(x, b)"
    hashes = [
        structure_of(onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + text % t))
        for t in (*lines, other)
    ]
    assert hashes[0] == hashes[1] != hashes[2]
    model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]>' + text % lines[0])
    model.graph.node[0].attribute.append(helper.make_attribute("odd", 1))
    assert structure_of(model) != hashes[0]
