"""The latency model: physics that must hold, and published rows that it must come near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks.latency import (
    START,
    estimated_ms,
    first_model_ms,
    fit,
    left_out,
    regime_errors,
)
from benchmarks.published import Row, kernels_of, published_rows
from edgeres.estimation import model
from edgeres.estimation.arithmetic import GENERATIONS, Arithmetic
from edgeres.estimation.fitted import fitted_model
from edgeres.estimation.model import EstimatedTiming, Load, latency, workload
from edgeres.machine.boards import Board, boards, find_board

COMPUTE = EstimatedTiming.COMPUTE


def _ms(
    board: Board,
    *,
    architecture: str = "resnet50",
    arithmetic: Arithmetic = Arithmetic.INT8,
    batch: int = 1,
    timing: EstimatedTiming = COMPUTE,
) -> float:
    kernels = kernels_of(architecture)
    assert kernels is not None
    load = Load(arithmetic=arithmetic, batch=batch, timing=timing)
    return latency(workload(kernels, board, load), fitted_model().constants).total


def _rows(numbers: Sequence[int]) -> list[Row]:
    return [row for row in published_rows() if row.number in set(numbers)]


def test_the_errors_of_boards_left_out_are_within_their_targets() -> None:
    """12, 8 and 25 %, and the first model fitted to the same rows stands beside."""
    fitted = fitted_model()
    assert fitted.error.mean <= 0.12
    assert fitted.error.median <= 0.08
    assert fitted.error.p90 <= 0.25
    assert fitted.error.mean < fitted.first_model.mean


def test_the_intervals_hold_four_of_five_left_out_rows() -> None:
    """By regime and in all, and none is narrower than equal hardware differs."""
    fitted = fitted_model()
    for coverage in (*(one.coverage for one in fitted.regimes.values()), fitted.coverage):
        assert 0.75 <= coverage <= 0.90
    for one in fitted.regimes.values():
        assert 2 * one.half_width >= one.equal_hardware


def test_the_committed_constants_are_those_of_the_fit() -> None:
    """From the committed constants on, a fit of the same rows stays where it is."""
    fitted = fitted_model()
    rows = _rows(fitted.fitted_rows)
    assert len(rows) == len(fitted.fitted_rows)
    errors = [np.log(estimated_ms(row, asdict(fitted.constants)) / row.latency_ms) for row in rows]
    assert float(np.mean(np.abs(errors))) < 0.09
    off = asdict(fitted.constants) | {"floor_cycles": 2 * fitted.constants.floor_cycles}
    assert float(np.mean([abs(np.log(estimated_ms(r, off) / r.latency_ms)) for r in rows])) > 0.12


def test_every_evaluated_row_is_recent_with_a_defined_timing() -> None:
    """ResNet-50, TensorRT 8.2 and later; no planning figure of a DLA, no other library."""
    rows = _rows(fitted_model().evaluated_rows)
    assert len(rows) == 130
    for row in rows:
        assert row.architecture == "resnet50"
        assert row.tensorrt >= 8.2
        assert row.is_comparable
        assert row.is_tensorrt


def test_a_board_that_is_left_out_is_not_fitted() -> None:
    """Its rows, however wrong, change neither its error's sign nor the others' constants."""
    rows = _rows(fitted_model().fitted_rows)[::6]
    target = next(row for row in rows if row.card == "a30")
    start = asdict(START)
    clean = left_out(rows, [target], start, one_constant_ms)
    spoilt = [
        replace(row, latency_ms=10 * row.latency_ms) if row.card == "a30" else row for row in rows
    ]
    assert left_out(spoilt, [target], start, one_constant_ms) == clean


def one_constant_ms(row: Row, values: Mapping[str, float]) -> float:
    """A model of one constant, quick to fit."""
    return values["floor_cycles"] * 1e-4 * row.workload.load.batch


def test_fitting_recovers_constants_that_made_the_rows() -> None:
    """On rows of its own making the fit finds the constants again, whatever it starts from."""
    truth = asdict(START) | {"floor_cycles": 6500.0, "math_efficiency": 0.55}
    rows = _rows(fitted_model().fitted_rows)[::9]
    made = [replace(row, latency_ms=estimated_ms(row, truth)) for row in rows]
    found = fit(made, asdict(START), estimated_ms)
    for row in made:
        assert estimated_ms(row, found) == pytest.approx(row.latency_ms, rel=0.05)


def test_a_regime_of_equal_errors_has_their_width() -> None:
    """Constant errors of 10 % give an interval that holds all of them."""
    rows = _rows(fitted_model().evaluated_rows)
    regimes, coverage, far = regime_errors(rows, {row.number: 0.1 for row in rows})
    assert coverage == 1
    assert far == pytest.approx(0.1)
    assert all(one.half_width >= 0.1 for one in regimes.values())


def test_the_power_mode_pair_of_agx_xavier_is_within_15_percent() -> None:
    """1377 MHz to 829 MHz with slower memory: 1.817 to 2.613 ms were published."""
    slow, fast = _rows([70])[0], _rows([65])[0]
    constants = asdict(fitted_model().constants)
    ratio = estimated_ms(slow, constants) / estimated_ms(fast, constants)
    assert ratio == pytest.approx(slow.latency_ms / fast.latency_ms, rel=0.15)


@pytest.mark.parametrize("board", ["t4", "nano", "agx-xavier"])
def test_deeper_networks_take_longer(board: str) -> None:
    """In the published order, in FP16 at batch 1."""
    modes = {mode.power_mode: mode for mode in boards()[board]}
    chosen = modes.get("MAXN") or find_board(board)
    names = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]
    times = [_ms(chosen, architecture=n, arithmetic=Arithmetic.FP16) for n in names]
    assert times == sorted(times)
    published = {
        row.architecture: row.latency_ms
        # A board that several published has its first publisher's figures, which are one series.
        for row in reversed(published_rows())
        if row.card == board and row.precision == "fp16" and row.workload.load.batch == 1
    }
    assert sorted(names, key=lambda n: published.get(n, 0)) == names


@pytest.mark.parametrize("name", sorted(boards()))
def test_physics_holds_on_every_board(name: str) -> None:
    """More images, a slower clock, fewer SMs, slower memory, less power: never faster."""
    for board in boards()[name]:
        assert board.compute_capability in GENERATIONS
        arithmetic = Arithmetic.FP16
        base = _ms(board, arithmetic=arithmetic, batch=8)
        assert base > _ms(board, arithmetic=arithmetic, batch=1)
        assert _ms(board, arithmetic=arithmetic, batch=64) > base
        slower = (
            replace(board, gpu_mhz=board.gpu_mhz / 2),
            replace(board, sms=max(1, board.sms // 2)),
            replace(board, memory_gbps=board.memory_gbps / 4),
            replace(board, power_w=board.power_w / 50),
        )
        for worse in slower:
            assert _ms(worse, arithmetic=arithmetic, batch=8) >= base * 0.999


def test_a_power_limit_is_felt_by_a_card_that_runs_into_it() -> None:
    """A T4's 70 W bind at a large batch, and hardly at batch 1."""
    card = find_board("t4")
    free = replace(card, power_w=1000.0)
    large, small = (_ms(card, batch=batch) / _ms(free, batch=batch) - 1 for batch in (256, 1))
    assert large > 4 * abs(small)


def test_a_large_cache_spares_the_memory() -> None:
    """An L4's 48 MiB hold ResNet-50's INT8 weights; with 4 MiB they come from its slow memory."""
    card = find_board("l4")
    assert _ms(replace(card, l2_mib=4.0)) > 1.1 * _ms(card)


@pytest.mark.parametrize("precision", [Arithmetic.INT8, Arithmetic.FP16])
def test_a_query_s_images_are_copied_to_a_card_alone(precision: Arithmetic) -> None:
    """3 x 224 x 224 values of each; a Jetson's GPU reads them where they are."""
    constants, kernels = fitted_model().constants, kernels_of("resnet50")
    assert kernels is not None
    grown = {}
    for name in ("t4", "agx-orin-64"):
        small, large = (
            latency(
                workload(
                    kernels,
                    find_board(name),
                    Load(arithmetic=precision, batch=n, timing=EstimatedTiming.SINGLE_STREAM),
                ),
                constants,
            ).host
            for n in (1, 8)
        )
        grown[name] = large - small
    sent = 7 * 3 * 224 * 224 * precision.value_bytes
    assert grown["t4"] == pytest.approx(sent / constants.pcie_gbps * 1e-6)
    assert grown["agx-orin-64"] == 0


def test_a_cache_in_two_parts_keeps_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """An A30's 24 MiB keep what 12 MiB in one part do."""
    card = find_board("a30")
    parts = GENERATIONS[card.compute_capability]
    two = _ms(card, batch=16)
    one = {card.compute_capability: replace(parts, l2_partitions=1)}
    monkeypatch.setattr(model, "GENERATIONS", {**GENERATIONS, **one})
    assert _ms(replace(card, l2_mib=card.l2_mib / 2), batch=16) == two > _ms(card, batch=16)


def test_a_loop_costs_more_than_a_graph_and_streams_less() -> None:
    """Offline < compute < single-stream and loop, on a card and on a Jetson."""
    for board in (find_board("a30"), find_board("orin-nx-16")):
        times = [
            _ms(board, timing=timing)
            for timing in (
                EstimatedTiming.OFFLINE,
                EstimatedTiming.COMPUTE,
                EstimatedTiming.SINGLE_STREAM,
                EstimatedTiming.LOOP,
            )
        ]
        assert times == sorted(times)


def test_the_first_model_is_computed_as_its_formula_says() -> None:
    """One row by hand: a floor a kernel is all that is left where all else is free."""
    row = _rows([34])[0]
    values = {
        "efficiency": 1e9,
        "memory": 1e9,
        "cache": 1.0,
        "least_use": 0.46,
        "cycles": 8000.0,
        "loop_cycles": 1.0,
        "host_pcie": 0.1,
        "host_soc": 0.0,
    }
    assert first_model_ms(row, values) == pytest.approx(56 * 8000 / 1.41e6 + 0.1, rel=1e-3)
