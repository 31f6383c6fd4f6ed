"""Mixed precision keeps from INT8 what a budget needs, and no more."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import images, logits_of, network, with_weight
from numpy.typing import NDArray
from tables import table_by_every_method

from edgeres.calibration import mixed
from edgeres.calibration.mixed import Budget, MixRequest, choose_mix, estimated_latency, pareto
from edgeres.calibration.quality import LogitEvaluator
from edgeres.core.methods import Method
from edgeres.core.precision import Precision
from edgeres.core.requests import BuildRequest
from edgeres.core.tuning import MixedPoint, MixedSearch
from edgeres.errors import CalibrationError, ConfigError
from edgeres.networks.explain import explain_architecture
from edgeres.networks.outline import outline
from edgeres.onnx_file import LoadedModel, load_onnx
from edgeres.quantization.graph import view
from edgeres.quantization.lowering import Mix
from edgeres.quantization.qdq.network import quantize_for_tensorrt
from edgeres.quantization.units import blocks, quantizable
from edgeres.serialization import from_json, to_json
from edgeres.targets.base import find_target
from edgeres.targets.onnxruntime.quantize import quantize_for_cpu


@dataclass(frozen=True)
class Labelled:
    """Images with the labels that the FP32 network gives them."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64] | None


def coarse(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns a weight whose scales are spoilt by what it makes of the first channel."""
    weight[:, 0] = 100 * np.abs(weight).max()
    return weight


def dead_first(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns a weight or bias without its first channel: then `coarse` harms INT8 alone."""
    value[0] = 0
    return value


def model_in(folder: Path) -> tuple[onnx.ModelProto, LoadedModel]:
    """Returns a network whose second convolution suffers most in INT8."""
    model = with_weight(network("identity"), "main1_w", coarse)
    for name in ("stem_w", "stem_b"):
        model = with_weight(model, name, dead_first)
    path = folder / "model.onnx"
    onnx.save(model, path)
    loaded = load_onnx(path)
    path.unlink()  # no stage reads it a second time
    return model, loaded


def batches(model: onnx.ModelProto) -> list[Labelled]:
    """Returns images that the FP32 network has all right."""
    found = [images(32, seed) for seed in (3, 4)]
    return [Labelled(x, logits_of(model, x).argmax(axis=1)) for x in found]


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_the_budget_is_kept_with_the_fewest_blocks_tried(tmp_path: Path, target: str) -> None:
    """INT8 alone breaks the budget; the engine keeps it, and every point before it does not."""
    model, artifact = model_in(tmp_path)
    table = table_by_every_method(view(model), images(32))
    request = MixRequest(
        lowering=find_target(target).lowering(), max_drop_pp=1.0, method=Method.MSE
    )
    mix = choose_mix(artifact, table, request, batches(model))
    assert mix.search is not None
    drops = [point.drop_pp for point in mix.search.points]
    assert drops[0] > 1.0 >= drops[-1]
    assert all(drop > 1.0 for drop in drops[:-1])
    made = {node.name: node.output[0] for node in view(model).nodes}
    assert "hidden" in {made[name] for name in mix.kept}
    assert mix.search.labelled
    assert from_json(to_json(mix.search), MixedSearch, source="it", remedy="") == mix.search


@pytest.mark.parametrize("target", ["onnxruntime", "tensorrt"])
def test_the_engine_has_the_drop_that_the_search_saw(tmp_path: Path, target: str) -> None:
    """The network that is built, run on its own, loses just what the last point says."""
    model, artifact = model_in(tmp_path)
    table = table_by_every_method(view(model), images(32))
    seen = batches(model)
    request = MixRequest(
        lowering=find_target(target).lowering(), max_drop_pp=1.0, method=Method.MSE
    )
    mix = choose_mix(artifact, table, request, seen)
    if target == "onnxruntime":
        built = quantize_for_cpu(artifact, table, Method.MSE, mix=mix)
    else:
        built = quantize_for_tensorrt(artifact, table, Method.MSE, mix=mix)
    labels = np.concatenate([b.labels for b in seen if b.labels is not None])
    found = np.concatenate([logits_of(built.model, b.images).argmax(axis=1) for b in seen])
    assert mix.search is not None
    drop = 100 * np.mean(found != labels)
    assert drop == pytest.approx(mix.search.points[-1].drop_pp, abs=100 / len(labels))
    reasons = {layer.name: layer.reason for layer in built.layers if layer.name in mix.kept}
    assert reasons == {n: r for n, r in mix.kept.items() if n in reasons}
    assert all(re.match(r"kept from INT8 for the accuracy", text) for text in reasons.values())


def test_kept_operators_run_in_float(tmp_path: Path) -> None:
    """ONNX Runtime's own optimised graph has a float convolution where one was kept."""
    model, artifact = model_in(tmp_path)
    graph = view(model)
    table = table_by_every_method(graph, images(8))
    hidden = next(node.name for node in graph.nodes if node.output[0] == "hidden")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    built = quantize_for_cpu(artifact, table, mix=Mix({hidden: "kept"}))
    onnxruntime.InferenceSession(
        built.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kinds = [n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2
    assert sum(kind in {"Conv", "FusedConv"} for kind in kinds) == 1
    precisions = {layer.name: layer.precision for layer in built.layers}
    assert precisions[hidden] is Precision.FP32


@pytest.mark.parametrize(
    ("float_stream", "kept"),
    [(True, {"sum"}), (False, {"hidden", "main", "shortcut", "sum"})],
)
def test_a_clipped_shortcut_costs_its_addition_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, float_stream: bool, kept: set[str]
) -> None:
    """Of the residual stream the one tensor stays float; without the option its whole block does.

    Where operators cost alike: on so small a network a launch alone costs more than a block.
    """
    monkeypatch.setattr(mixed, "estimated_latency", lambda graph: 1.0 + len(graph.kept))
    model = network("down-sampling")
    onnx.save(model, tmp_path / "model.onnx")
    loaded, graph = load_onnx(tmp_path / "model.onnx"), view(model)
    table = table_by_every_method(graph, images(32))
    clipping = {m: t.scaled(0.01) for m, t in table.tensors["shortcut"].thresholds.items()}
    clipped = replace(table.tensors["shortcut"], thresholds=clipping)
    table = replace(table, tensors={**table.tensors, "shortcut": clipped})
    # A budget that nothing keeps: the first unit that is kept is the one most worth it.
    request = MixRequest(
        lowering=find_target("tensorrt").lowering(), max_drop_pp=-1.0, float_stream=float_stream
    )
    search = choose_mix(loaded, table, request, batches(model)).search
    assert search is not None
    assert search.points[1].latency == 1 + len(kept)
    assert search.points[1].sqnr_db > search.points[0].sqnr_db + 40


def test_an_addition_in_float_leaves_its_convolutions_integer(tmp_path: Path) -> None:
    """The addition reads what the convolutions made, and they read integers as before."""
    model = network("down-sampling")
    onnx.save(model, tmp_path / "model.onnx")
    graph = view(model)
    add = next(node for node in graph.nodes if node.op_type == "Add")
    table = table_by_every_method(graph, images(8))
    built = quantize_for_tensorrt(
        load_onnx(tmp_path / "model.onnx"), table, mix=Mix({add.name: "kept"})
    )
    lowered = view(built.model)
    pairs = [node.input[0] for node in lowered.nodes if node.op_type == "QuantizeLinear"]
    assert pairs == ["image", "entry", "hidden_relu"]
    assert list(next(n for n in lowered.nodes if n.op_type == "Add").input) == list(add.input)
    precisions = {layer.op_type: layer.precision for layer in built.layers}
    assert (precisions["Conv"], precisions["Add"]) == (Precision.INT8, Precision.FP32)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "choice of mixed precision and FP8, and --precision is int8"),
        ({"precision": Precision.FP16, "target": "tensorrt"}, "and --precision is fp16"),
        ({"precision": Precision.MIXED, "max_drop_pp": 1.0}, "pass --target tensorrt"),
    ],
)
def test_a_float_stream_is_refused_where_it_is_no_choice(more: dict[str, Any], told: str) -> None:
    """Without mixed precision, and on the CPU, whose convolutions make integers alone."""

    def check() -> None:
        request = BuildRequest(float_stream=True, **more)
        find_target(request.target).check_request(request)

    with pytest.raises(ConfigError, match=re.escape(told)):
        check()


def test_a_kept_block_takes_its_addition_along(tmp_path: Path) -> None:
    """A budget that nothing but float keeps: no point of the search repeats another."""
    model, artifact = model_in(tmp_path)
    table = table_by_every_method(view(model), images(32))
    request = MixRequest(
        lowering=find_target("tensorrt").lowering(), max_drop_pp=-1.0, float_stream=True
    )
    mix = choose_mix(artifact, table, request, batches(model))
    assert mix.search is not None
    assert set(mix.kept) == set(quantizable(view(model)))
    assert len({frozenset(point.kept) for point in mix.search.points}) == len(mix.search.points)


def test_int8_that_keeps_the_budget_is_left_alone(tmp_path: Path) -> None:
    """Nothing is kept, and nothing but INT8 is tried."""
    model = network("identity")
    onnx.save(model, tmp_path / "model.onnx")
    table = table_by_every_method(view(model), images(32))
    request = MixRequest(
        lowering=find_target("tensorrt").lowering(), max_drop_pp=100.0, method=Method.MSE
    )
    mix = choose_mix(load_onnx(tmp_path / "model.onnx"), table, request, batches(model))
    assert not mix.kept
    assert mix.search is not None
    assert len(mix.search.points) == 1


def test_without_labels_every_changed_label_is_lost() -> None:
    """Never less than the drop: flips that happen to be right count too."""
    model = network("identity")
    evaluator = LogitEvaluator.of(model, view(model), [images(8)])
    changed = evaluator.logits.copy()
    changed[:2] = -changed[:2]
    labels = changed.argmax(axis=1)
    assert Budget(evaluator, None, 0.0).drop_pp(changed) == pytest.approx(25.0)
    assert Budget(evaluator, labels, 0.0).drop_pp(changed) == pytest.approx(-25.0)


def test_no_image_is_an_error(tmp_path: Path) -> None:
    """A search without images would call anything within the budget."""
    _, artifact = model_in(tmp_path)
    table = table_by_every_method(view(network("identity")), images(4))
    with pytest.raises(CalibrationError, match=r"No image came to choose mixed precision"):
        choose_mix(
            artifact,
            table,
            MixRequest(lowering=find_target("tensorrt").lowering(), max_drop_pp=1.0),
            [],
        )


def test_the_estimate_grows_with_what_is_kept_from_int8() -> None:
    """None kept is 1; all together cost at most FP16's bytes and arithmetic, twice those of INT8."""
    graph = view(outline(explain_architecture("resnet18")))
    ratios = [estimated_latency(graph)]
    kept: dict[str, str] = {}
    for unit in blocks(graph):
        kept |= dict.fromkeys(unit.nodes, "kept")
        ratios.append(estimated_latency(graph.keeping(kept)))
    assert ratios[0] == 1
    assert ratios == sorted(ratios)
    assert 1.3 < ratios[-1] < 2


def test_the_pareto_front_is_what_no_point_beats() -> None:
    """A brute-force check by hand: (2, 1), (1, 2) and (0, 3) stand, (1, 3) and (2, 2) do not."""
    pairs = [(2.0, 1.0), (1.0, 3.0), (1.0, 2.0), (2.0, 2.0), (0.0, 3.0)]
    points = [
        MixedPoint(kept=(), drop_pp=drop, sqnr_db=0.0, latency=latency) for drop, latency in pairs
    ]
    assert pareto(points) == (0, 2, 4)
