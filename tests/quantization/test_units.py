"""Residual blocks and layers are found in the graph, and measured one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from networks import images, logits_of, network, swapped, with_weight
from tables import table_by_every_method

from edgeres.calibration.quality import NOISELESS_DB, LogitEvaluator, sqnr_db
from edgeres.calibration.sensitivity import measure_sensitivity
from edgeres.core.contract import InputType
from edgeres.core.methods import Method
from edgeres.core.tuning import Sensitivity, UnitSensitivity
from edgeres.progress import silent
from edgeres.quantization.graph import view
from edgeres.quantization.qdq.network import LOWERING as TENSORRT_LOWERING
from edgeres.quantization.qdq.sources import residual_stream
from edgeres.quantization.units import blocks, layers, quantizable
from edgeres.serialization import from_json, to_json


def named(name: str) -> dict[str, set[str]]:
    """Returns the outputs of each unit's operators, by the unit's kind and first operator."""
    graph = view(network(name))
    made = {node.name: node.output[0] for node in graph.nodes}
    return {
        f"{unit.kind} {index}": {made[n] for n in unit.nodes}
        for index, unit in enumerate(blocks(graph))
    }


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("identity", {"hidden", "main", "sum"}),
        ("down-sampling", {"hidden", "main", "shortcut", "sum"}),
        ("option A", {"hidden", "main", "sum"}),
        ("bottleneck", {"reduced", "hidden", "main", "shortcut", "sum"}),
    ],
)
def test_a_block_is_what_lies_between_the_parting_and_the_add(name: str, block: set[str]) -> None:
    """The stem before it and the pooling behind it are units of their own."""
    assert named(name) == {"layer 0": {"stem"}, "block 1": block, "layer 2": {"pooled"}}


def test_two_blocks_share_no_operator() -> None:
    """Pre-activation blocks in a row: each operator is in one unit, all are in some."""
    graph = view(network("pre-activation"))
    units = blocks(graph)
    assert [unit.kind for unit in units].count("block") == 2
    assert sum(len(unit.nodes) for unit in units) == len(quantizable(graph))
    assert frozenset().union(*(unit.nodes for unit in units)) == quantizable(graph)


@pytest.mark.parametrize("name", ["identity", "down-sampling"])
def test_the_order_of_operands_does_not_matter(name: str) -> None:
    """Exporters write Add either way round."""
    plain = {unit.nodes for unit in blocks(view(network(name)))}
    assert plain == {unit.nodes for unit in blocks(view(swapped(network(name))))}


def test_sensitivity_is_what_running_each_variant_shows() -> None:
    """Each figure is the quality of the network lowered with just these operators in float."""
    model = network("down-sampling")
    graph = view(model)
    table = table_by_every_method(graph, images(16))
    evaluator = LogitEvaluator.of(model, graph, [images(8, seed=3)])
    reported: list[float] = []

    def progress(stage: str, done: float, total: float, note: str = "") -> None:
        reported.append(done / total)

    found = measure_sensitivity(graph, table, evaluator, progress)
    everything = quantizable(graph)
    assert len(found.units) == len({*blocks(graph), *layers(graph)})
    for unit in found.units:
        for quantized, quality in (
            (set(unit.nodes), unit.alone_db),
            (everything - set(unit.nodes), unit.without_db),
        ):
            kept = graph.keeping(dict.fromkeys(everything - quantized, "measured"))
            assert quality == evaluator.quality(TENSORRT_LOWERING, kept, table, Method.MAX)
    assert reported[-1] == 1
    assert from_json(to_json(found), Sensitivity, source="it", remedy="") == found


def test_the_layer_with_the_coarse_weights_is_the_sensitive_one() -> None:
    """Seeded fault: one outlier in a channel of each output spoils its INT8 scale."""

    def spoil(weight: np.ndarray) -> np.ndarray:
        weight[:, 0, 0, 0] = 40 * np.abs(weight).max()
        return weight

    model = with_weight(network("identity"), "main1_w", spoil)
    graph = view(model)
    table = table_by_every_method(graph, images(16))
    evaluator = LogitEvaluator.of(model, graph, [images(8, seed=3)])
    found = measure_sensitivity(graph, table, evaluator, silent)
    alone = {unit.nodes: unit.alone_db for unit in found.units if unit.kind == "layer"}
    spoiled = next(node.name for node in graph.nodes if node.output[0] == "hidden")
    assert min(alone, key=lambda nodes: alone[nodes]) == (spoiled,)
    assert max(alone.values()) <= NOISELESS_DB


def test_the_gains_are_named_as_reports_name_blocks_and_layers() -> None:
    """A block by its name, a layer by its operator; a gain below zero stays as it was measured."""

    def unit(name: str, kind: str, without: float) -> UnitSensitivity:
        return UnitSensitivity(
            unit=name, kind=kind, nodes=(f"/{name}/Conv",), alone_db=50, without_db=without
        )

    units = (unit("layer1.0", "block", 31.5), unit("conv1", "layer", 29.0))
    found = Sensitivity(images=8, method=Method.MSE, all_db=30.0, units=units)
    assert found.gains_db == {"layer1.0": 1.5, "/conv1/Conv": -1.0}


def test_units_carry_the_names_of_their_modules() -> None:
    """As a state dict has them: a projection says whose it is, and no two layers share a name."""
    model = network("down-sampling")
    block = "/layer2/layer2.0"
    names = {
        "stem": "/conv1/Conv",
        "hidden": f"{block}/conv1/Conv",
        "main": f"{block}/conv2/Conv",
        "shortcut": f"{block}/downsample/downsample.0/Conv",
        "sum": f"{block}/Add",
    }
    for node in model.graph.node:
        node.name = names.get(node.output[0], node.name)
    graph = view(model)
    assert [unit.name for unit in blocks(graph)][:2] == ["conv1", "layer2.0"]
    assert {unit.name for unit in layers(graph)} >= {
        "conv1",
        "layer2.0.conv1",
        "layer2.0.conv2",
        "layer2.0.downsample.0",
        "layer2.0.Add",
    }


def test_the_sources_of_the_error_are_what_rounding_by_hand_shows() -> None:
    """The image's and the weights' on numbers that numpy rounded; all of them add up to the whole."""
    model = network("down-sampling")
    graph = view(model)
    table = table_by_every_method(graph, images(64))
    batch = images(32, seed=3)
    evaluator = LogitEvaluator.of(model, graph, [batch])
    found = measure_sensitivity(graph, table, evaluator, silent)
    source = {each.name: each for each in found.sources}
    step = table.threshold(graph.input).s8 / 127
    seen = np.rint(batch / step).clip(-127, 127).astype(np.float32) * np.float32(step)
    by_hand = sqnr_db(evaluator.logits, logits_of(model, seen))
    assert source["image"].alone_db == pytest.approx(by_hand, abs=0.01)
    rounded = model
    for node in (n for n in model.graph.node if n.op_type == "Conv"):
        rounded = with_weight(rounded, node.input[1], rounded_by_channel)
    by_hand = sqnr_db(evaluator.logits, logits_of(rounded, batch))
    assert source["weights"].alone_db == pytest.approx(by_hand, abs=0.01)
    noise = sum(10 ** (-each.alone_db / 10) for each in found.sources)
    assert -10 * np.log10(noise) == pytest.approx(found.all_db, abs=1.5)
    assert {name: each.tensors for name, each in source.items()} == {
        "weights": 4,
        "image": 1,
        "inside blocks": 1,
        "residual stream": 2,
    }


def rounded_by_channel(weight: np.ndarray) -> np.ndarray:
    """Returns a weight with 127 levels on each side of zero in each output channel."""
    steps = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127
    return np.asarray(np.rint(weight / steps) * steps, np.float32)


def test_exact_pixels_are_no_source_of_error() -> None:
    """An image of bytes reaches the first convolution as it is: nothing of it is rounded."""
    graph = view(network("identity"))
    table = table_by_every_method(graph, images(16))
    contract = replace(table.contract, input=InputType.UINT8)
    evaluator = LogitEvaluator.of(graph.model, graph, [images(8, seed=3)])
    found = measure_sensitivity(graph, replace(table, contract=contract), evaluator, silent)
    source = {each.name: each for each in found.sources}
    assert source["image"].tensors == 0
    assert source["image"].alone_db > 100


@pytest.mark.parametrize(
    ("name", "stream"),
    [
        ("identity", {"entry"}),
        ("option A", {"entry"}),
        ("bottleneck", {"entry", "shortcut"}),
        ("down-sampling", {"entry", "shortcut"}),
    ],
)
def test_the_residual_stream_is_what_blocks_hand_on(name: str, stream: set[str]) -> None:
    """Where branches part and what shortcuts bring, behind the operators that only move values."""
    graph = view(network(name))
    assert residual_stream(graph) == stream
