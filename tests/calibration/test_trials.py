"""Candidates are compared with the best so far at no more than the comparison costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from networks import images, network
from numpy.typing import NDArray
from onnx import numpy_helper
from tables import table_by_every_method

from edgeres.calibration import trials
from edgeres.calibration.prefixes import behind, common_operators, cuts_of, kept_cuts
from edgeres.calibration.quality import LogitEvaluator, computable, sqnr_by_image, sqnr_db
from edgeres.calibration.trials import Trial, compared, measured
from edgeres.core.methods import Method
from edgeres.core.table import CalibrationTable
from edgeres.quantization.graph import Graph, view
from edgeres.quantization.lowering import Lowering
from edgeres.session import open_session, run_session
from edgeres.targets.base import lowerings

NEVER = -1000.0
"""A least gain that every candidate reaches."""


class Session:
    """Counts what sessions that stage opens compute."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stands in the place of what the stage opens and runs."""
        self.operators: list[int] = []
        self.images = 0

        def opened(model: bytes) -> Any:
            self.operators.append(len(onnx.ModelProto.FromString(model).graph.node))
            return open_session(model)

        def run(session: Any, outputs: Sequence[str], feed: dict[str, Any]) -> list[Any]:
            self.images += len(next(iter(feed.values())))
            return run_session(session, outputs, feed)

        monkeypatch.setattr(trials, "open_session", opened)
        monkeypatch.setattr(trials, "run_session", run)


def prepared(name: str, count: int = 24) -> tuple[Graph, CalibrationTable, LogitEvaluator]:
    """Returns a network with its table, and an evaluator of batches of four."""
    model = network(name)
    graph = view(model)
    batches = [images(4, seed) for seed in range(20, 20 + count // 4)]
    return graph, table_by_every_method(graph, images(16)), LogitEvaluator.of(model, graph, batches)


def narrowed(table: CalibrationTable, tensor: str, factor: float) -> CalibrationTable:
    """Returns a table with one tensor's thresholds times a factor."""
    seen = table.tensors[tensor]
    found = seen.thresholds[Method.MSE]
    changed = replace(
        found, s8=found.s8 * factor, u8=None if found.u8 is None else found.u8 * factor
    )
    thresholds = {**seen.thresholds, Method.MSE: changed}
    return replace(table, tensors={**table.tensors, tensor: replace(seen, thresholds=thresholds)})


@pytest.mark.parametrize("lowering", lowerings(), ids=lambda lowering: lowering.name)
@pytest.mark.parametrize("name", ["identity", "down-sampling", "bottleneck", "pre-activation"])
def test_what_follows_the_change_gives_the_whole_networks_quality(
    name: str, lowering: Lowering
) -> None:
    """Whichever tensor a candidate changes; the reference evaluates it from the image on."""
    graph, table, evaluator = prepared(name)
    best = measured(evaluator, computable(lowering, graph, table, Method.MSE), with_values=True)
    assert best.quality == evaluator.quality(lowering, graph, table, Method.MSE)
    for tensor in table.tensors:
        changed = narrowed(table, tensor, 0.5)
        candidate = computable(lowering, graph, changed, Method.MSE)
        comparison = compared(evaluator, best, candidate, NEVER)
        trial = comparison.trial
        expected = evaluator.quality(lowering, graph, changed, Method.MSE)
        assert comparison.gain_db == pytest.approx(expected - best.quality, abs=1e-6)
        if trial is None:
            assert expected == best.quality
        else:
            assert trial.quality == pytest.approx(expected, abs=1e-6)


def test_only_what_follows_the_change_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change near the logits runs a part of the network, one at the image all of it."""
    graph, table, evaluator = prepared("pre-activation")
    lowering = lowerings()[0]
    best = measured(evaluator, computable(lowering, graph, table, Method.MSE), with_values=True)
    assert best.values
    session = Session(monkeypatch)
    for tensor in ("image", "hidden2_relu"):
        candidate = computable(lowering, graph, narrowed(table, tensor, 0.5), Method.MSE)
        compared(evaluator, best, candidate, NEVER)
    assert session.operators[0] > session.operators[1] > 0


def test_a_candidate_that_is_the_same_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a threshold stands in the table for another target alone."""
    graph, table, evaluator = prepared("identity")
    for lowering in lowerings():
        best = measured(evaluator, computable(lowering, graph, table, Method.MSE))
        session = Session(monkeypatch)
        changed = narrowed(table, "pooled", 0.5)
        candidate = computable(lowering, graph, changed, Method.MSE)
        assert compared(evaluator, best, candidate, 0.02).trial is None
        assert not session.operators


def test_a_hopeless_candidate_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first sixteen images, one that would be taken never before the last."""
    graph, table, evaluator = prepared("identity", count=64)
    lowering = lowerings()[0]
    poor = narrowed(table, "hidden_relu", 0.1)
    networks = [computable(lowering, graph, each, Method.MSE) for each in (table, poor)]
    session = Session(monkeypatch)
    good, bad = (measured(evaluator, each) for each in networks)
    assert session.images == 128
    session.images = 0
    given_up = compared(evaluator, good, networks[1], 0.02)
    assert given_up.trial is None
    assert session.images == 16
    # The images that were run, of both: not the mean of one on sixteen less that of the other on all.
    assert given_up.gain_db == pytest.approx((bad.ratios - good.ratios)[:16].mean(), abs=1e-6)
    session.images = 0
    whole = compared(evaluator, bad, networks[0], 0.02)
    taken = whole.trial
    assert session.images == 64
    assert taken is not None
    np.testing.assert_array_equal(taken.ratios, good.ratios)
    assert whole.gain_db == pytest.approx(good.quality - bad.quality, abs=1e-6)


@pytest.mark.parametrize(("spread", "images"), [(0.0, 16), (0.6, 16), (3.0, 48)])
def test_a_candidate_is_tried_as_long_as_it_may_gain(
    spread: float, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lacks 0.5 dB: where images agree the first sixteen show it, where not all are run."""
    graph, table, evaluator = prepared("identity", count=64)
    models = [
        computable(lowerings()[0], graph, each, Method.MSE)
        for each in (table, narrowed(table, "last", 0.5))
    ]
    best = measured(evaluator, models[0])
    errors = np.tile([spread, -spread], 32)
    ratios = iter(np.split(best.ratios - 0.5 + errors, 16))
    monkeypatch.setattr(trials, "sqnr_by_image", lambda *_: next(ratios))
    session = Session(monkeypatch)
    assert compared(evaluator, best, models[1], 0.02).trial is None
    assert session.images == images


def test_few_or_equal_images_are_all_evaluated() -> None:
    """Gains without any spread, and fewer images than show one, divide by nothing."""
    graph, table, evaluator = prepared("identity", count=4)
    lowering = lowerings()[0]
    best = measured(evaluator, computable(lowering, graph, table, Method.MSE))
    changed = computable(lowering, graph, narrowed(table, "last", 0.5), Method.MSE)
    worst = Trial(best.model, best.ratios - 50, {})
    assert compared(evaluator, worst, changed, 0.02).trial is not None


def test_constants_are_compared_too() -> None:
    """Networks of the same operators part where a constant differs, not only where a name does."""
    graph, table, _ = prepared("bottleneck")
    model = computable(lowerings()[0], graph, table, Method.MSE)
    assert common_operators(model, model) == len(model.graph.node)
    for tensor in model.graph.initializer:
        other = onnx.ModelProto.FromString(model.SerializeToString())
        changed = next(t for t in other.graph.initializer if t.name == tensor.name)
        value = numpy_helper.to_array(changed)
        changed.CopyFrom(numpy_helper.from_array((value + 1).astype(value.dtype), tensor.name))
        first = next(i for i, n in enumerate(model.graph.node) if tensor.name in n.input)
        assert common_operators(model, other) == first


@pytest.mark.parametrize("lowering", lowerings(), ids=lambda lowering: lowering.name)
def test_a_network_behind_a_cut_continues_it(lowering: Lowering) -> None:
    """At every cut: the tensor there, put in, gives the logits of the whole."""
    graph, table, evaluator = prepared("max-pooled stem")
    model = computable(lowering, graph, table, Method.MSE)
    cuts = cuts_of(model)
    assert cuts
    x = images(4, seed=3)
    whole = open_session(behind(model, None, cuts).SerializeToString())
    logits, *values = run_session(whole, ["logits", *(c.tensor for c in cuts)], {"image": x})
    for cut, value in zip(cuts, values, strict=True):
        tail = open_session(behind(model, (cut, value.shape[1:]), ()).SerializeToString())
        found: NDArray[np.float32] = run_session(tail, ["logits"], {cut.tensor: value})[0]
        assert sqnr_db(logits, found) > 60
    assert evaluator.images == len(sqnr_by_image(evaluator.logits, evaluator.logits))


def test_the_last_cut_of_each_size_is_kept_as_memory_allows() -> None:
    """By hand: two stages of blocks; with less memory those near the logits remain."""
    sizes = [40, 80, 80, 20, 20, 20, 10]
    assert kept_cuts(sizes, 1000) == (0, 2, 5, 6)
    assert kept_cuts(sizes, 110) == (2, 5, 6)
    assert kept_cuts(sizes, 35) == (5, 6)
    assert kept_cuts(sizes, 5) == ()
    assert kept_cuts([], 5) == ()
