"""Method auto picks thresholds by the logits of held-out images, and says what it picked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import images, network, with_weight
from tables import table_by_every_method

from edgeres.quantize.auto import CANDIDATES, STEP, choose_thresholds
from edgeres.quantize.graph import Graph, view
from edgeres.quantize.judge import CPU_LOWERING, TENSORRT_LOWERING, Judge, judge, untold
from edgeres.spec import Method
from edgeres.table import CalibrationTable, Threshold


def prepared(model: onnx.ModelProto) -> tuple[Graph, CalibrationTable, Judge]:
    """Returns a network's graph, its table, and a judge on images that the table has not seen."""
    graph = view(model)
    table = table_by_every_method(graph, images(32))
    return graph, table, judge(model.SerializeToString(), graph, [images(16, seed=9)])


@pytest.mark.parametrize("name", ["identity", "down-sampling", "bottleneck", "pre-activation"])
def test_auto_is_never_worse_than_any_method(name: str) -> None:
    """On the images that judge, for both lowerings; the record says by how much.

    TensorRT's is compared under the thresholds that the CPU's search gave to signed tensors.
    """
    graph, table, judging = prepared(network(name))
    chosen = choose_thresholds(graph, table, judging, untold)
    for lowering, choice in zip((CPU_LOWERING, TENSORRT_LOWERING), chosen.choices, strict=True):
        auto = judging.quality(lowering, graph, chosen, Method.AUTO)
        assert choice.target is lowering.target
        assert choice.tuned_db == pytest.approx(auto, abs=0.01)
        assert auto >= max(choice.sqnr_db.values()) - 0.01
        assert choice.method == max(CANDIDATES, key=lambda m: choice.sqnr_db[m])
    found = {m: judging.quality(CPU_LOWERING, graph, table, m) for m in CANDIDATES}
    assert chosen.choices[0].sqnr_db == found


def test_thresholds_that_clip_the_evidence_are_widened() -> None:
    """Seeded fault: every method's threshold a third of the right one; auto finds most back."""
    graph, table, judging = prepared(network("identity"))
    clipped = replace(
        table,
        tensors={
            name: replace(
                seen,
                thresholds={
                    m: Threshold(s8=t.s8 / 3, u8=None if t.u8 is None else t.u8 / 3)
                    for m, t in seen.thresholds.items()
                },
            )
            for name, seen in table.tensors.items()
        },
    )
    before = judging.quality(CPU_LOWERING, graph, clipped, Method.MAX)
    chosen = choose_thresholds(graph, clipped, judging, untold)
    choice = chosen.choices[0]
    assert choice.tuned_db > before + 6
    assert max(choice.factors.values()) >= STEP**2


def test_no_threshold_passes_what_was_seen() -> None:
    """Widening stops at the exact extreme: beyond it levels are only wasted."""
    graph, table, judging = prepared(network("down-sampling"))
    chosen = choose_thresholds(graph, table, judging, untold)
    for seen in chosen.tensors.values():
        threshold = seen.thresholds[Method.AUTO]
        assert threshold.s8 <= seen.amax
        assert (threshold.u8 is None) is seen.signed
        assert threshold.u8 is None or threshold.u8 <= seen.amax


def test_the_choice_is_deterministic_and_survives_the_file() -> None:
    """Two searches give the same table; JSON brings the record back."""
    graph, table, judging = prepared(network("identity"))
    first = choose_thresholds(graph, table, judging, untold)
    assert first == choose_thresholds(graph, table, judging, untold)
    assert CalibrationTable.from_dict(first.to_dict()) == first


def test_a_dead_network_is_no_reason_to_fail() -> None:
    """All-zero weights leave nothing to choose by; every method is as good."""
    model = with_weight(network("identity"), "stem_w", np.zeros_like)
    graph, table, judging = prepared(model)
    chosen = choose_thresholds(graph, table, judging, untold)
    assert chosen.method is Method.AUTO
