"""The CPU's own biases: fitted to what its lowering rounds, and better than TensorRT's there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import images, logits_of, network
from numpy.typing import NDArray
from tables import table_from_images

from edgeres.calibration.quality import sqnr_db
from edgeres.calibration.recovery.cpu import cpu_biases
from edgeres.calibration.recovery.replay import quantized_replay
from edgeres.core.methods import Method, Recover
from edgeres.core.recovery import Corrected, Recovery
from edgeres.core.table import CalibrationTable, Threshold
from edgeres.progress import silent
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.parameters import Parameters, parameters_of, with_parameters
from edgeres.quantization.recovered import recovered
from edgeres.quantization.rounding import grid_scales, on_grid
from edgeres.targets.onnxruntime.joint import Affine, rounded_parts
from edgeres.targets.onnxruntime.lowering import activation_grid, lower_for_cpu
from edgeres.targets.onnxruntime.placement import joined_convolutions, place_for_cpu

Array = NDArray[np.float32]


def on_grids(graph: Graph) -> Graph:
    """Returns the graph with the weights that have a grid of their own rounded to it."""
    placement = place_for_cpu(graph)
    found = {}
    for node in graph.nodes:
        if node.name in placement.weighted:
            p = parameters_of(graph, node)
            found[node.name] = Parameters(on_grid(p.weight, grid_scales(p.weight)), p.bias)
    return with_parameters(graph, found)


def jointly_rounded(graph: Graph, table: CalibrationTable) -> Graph:
    """Returns the graph with the weights of joint convolutions as these have them."""
    found = {}
    for convs in joined_convolutions(graph).values():
        trained = [parameters_of(graph, conv) for conv in convs]
        scales = [activation_grid(graph, table, conv.input[0]).scale for conv in convs]
        parts = rounded_parts([Affine(p.weight, None) for p in trained], scales)
        for conv, weight, p in zip(convs, parts, trained, strict=True):
            found[conv.name] = Parameters(weight, p.bias)
    return with_parameters(graph, found)


@pytest.mark.parametrize("name", ["identity", "down-sampling", "bottleneck", "option A"])
def test_the_quantized_network_is_the_lowered_one(name: str) -> None:
    """What is simulated in float is what the integers compute, but for a step here and there."""
    graph = view(network(name))
    table = table_from_images(graph, images(4))
    settled = on_grids(graph)
    weighted = jointly_rounded(settled, table)
    replay = quantized_replay(weighted, place_for_cpu(graph), table, images(6), unsigned=True)
    (logits,) = next(replay.read(["logits"]))
    expected = logits_of(lower_for_cpu(settled, table), images(6), optimized=False)
    error = np.abs(logits_of(network(name), images(6)) - expected).max()
    assert np.abs(logits - expected).max() < error / 3


@pytest.mark.parametrize("name", ["identity", "bottleneck"])
def test_the_cpu_comes_closer_by_its_own_biases(name: str) -> None:
    """On images that nothing has seen, where thresholds clip a third of every range."""
    graph = view(network(name))
    table = narrowed(table_from_images(graph, images(16)))
    shifts = cpu_biases(graph, table, images(40), fitted=36, recovered={}, progress=silent)
    biases = {layer: tuple(map(float, shift)) for layer, shift in shifts.items()}
    corrected = replace(table, recovery=recovery(biases))
    unseen = images(16, seed=9)
    reference = logits_of(network(name), unseen)
    before, after = (
        sqnr_db(reference, logits_of(lowered(graph, t), unseen, optimized=False))
        for t in (table, corrected)
    )
    assert after > before + 1


def test_a_joint_convolution_is_corrected_once() -> None:
    """By the last of its parts; every other convolution by itself."""
    graph = view(network("bottleneck"))
    table = table_from_images(graph, images(8))
    shifts = cpu_biases(graph, table, images(12), fitted=10, recovered={}, progress=silent)
    names = {str(node.output[0]): node.name for node in graph.nodes}
    assert list(shifts) == [names[n] for n in ("stem", "reduced", "hidden", "shortcut")]


def lowered(graph: Graph, table: CalibrationTable) -> onnx.ModelProto:
    """Returns the CPU's lowering of what recovery makes of the network."""
    changed = recovered(graph, table, place_for_cpu(graph), "onnxruntime")
    return lower_for_cpu(changed, table)


def narrowed(table: CalibrationTable) -> CalibrationTable:
    """Returns the table with two thirds of every threshold."""
    tensors = {}
    for name, seen in table.tensors.items():
        old = seen.thresholds[Method.MAX]
        new = Threshold(s8=old.s8 * 2 / 3, u8=None if old.u8 is None else old.u8 * 2 / 3)
        tensors[name] = replace(seen, thresholds={Method.MAX: new})
    return replace(table, tensors=tensors)


def recovery(biases: dict[str, tuple[float, ...]]) -> Recovery:
    """Returns a recovery of the CPU's biases alone."""
    corrected = Corrected(before_db=0, after_db=0, biases=biases)
    return Recovery(
        kind=Recover.BIAS,
        method=Method.MAX,
        seed=0,
        samples=40,
        held_out=2,
        lowerings={"onnxruntime": corrected},
        equalization={},
        rounding={},
    )
