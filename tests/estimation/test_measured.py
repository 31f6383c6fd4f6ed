"""A measurement beside its estimate: what was changed is among what would explain it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from commands import passed, refusal

from edgeres.estimation.arithmetic import Arithmetic
from edgeres.estimation.estimate import EstimateRequest, estimate_network
from edgeres.estimation.measured import explain_measurement
from edgeres.estimation.model import EstimatedTiming
from edgeres.estimation.network import network_of
from edgeres.machine.boards import find_board

NETWORK = network_of("resnet50")


def _request(
    mode: str = "MAXN",
    timing: EstimatedTiming = EstimatedTiming.COMPUTE,
    precision: Arithmetic = Arithmetic.INT8,
) -> EstimateRequest:
    board = find_board("agx-orin-64", mode)
    return EstimateRequest(board=board, precisions=(precision,), timings=(timing,))


@pytest.mark.parametrize(
    ("actual", "words"),
    [
        (_request(mode="15W"), "power mode 15W: 6 SMs at 420.75 MHz"),
        (_request(mode="30W"), "power mode 30W: 8 SMs at 624.75 MHz"),
        (_request(timing=EstimatedTiming.LOOP), "no CUDA graph"),
        (_request(precision=Arithmetic.FP32), "layers in float: as slow as an fp32 engine"),
    ],
)
def test_what_was_changed_is_named_first(actual: EstimateRequest, words: str) -> None:
    """A latency of the changed request, compared with the one that was meant."""
    (one,) = estimate_network(NETWORK, actual).estimates
    told = explain_measurement(NETWORK, _request(), one.latency_ms)
    assert not told.within
    assert words in told.fits[0].change
    assert told.fits[0].latency_ms == pytest.approx(one.latency_ms)


def test_a_measurement_within_the_interval_needs_no_explanation() -> None:
    """The estimate itself, and both ends."""
    (own,) = estimate_network(NETWORK, _request()).estimates
    for measured in (own.latency_ms, own.low_ms, own.high_ms):
        told = explain_measurement(NETWORK, _request(), measured)
        assert told.within
        assert told.fits == ()


def test_what_nothing_explains_is_said_to_be_that() -> None:
    """A latency a thousand times the estimate."""
    line = ("estimate", "resnet50", "--board", "agx-orin-64", "--precision", "int8")
    assert "no other power mode" in passed(*line, "--measured", 9000)
    told = json.loads(passed(*line, "--measured", 9000, "--json"))["measured"]
    assert (told["within"], told["fits"]) == (False, [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--measured 3", "Pass one --precision"),
        ("--precision int8 --batch 1,2 --measured 3", "2 were requested"),
        ("--precision int8 --measured 0", "--measured is 0"),
        ("--precision int8 --measured nan", "--measured is nan"),
    ],
)
def test_a_measurement_is_of_one_configuration(line: str, said: str) -> None:
    """Several estimates, or no latency at all."""
    assert said in refusal("estimate", "resnet50", "--board", "agx-orin-64", *line.split(), code=2)


def test_the_clock_that_was_observed_is_tried_first() -> None:
    """A GPU at half its clock explains a latency that no timing or precision does."""
    board = replace(find_board("agx-orin-64", "MAXN"), gpu_mhz=500.0)
    slow = replace(_request(), board=board)
    (one,) = estimate_network(NETWORK, slow).estimates
    told = explain_measurement(NETWORK, _request(), one.latency_ms, 500.0)
    assert told.fits[0].change == "the clock that was observed: 500 MHz instead of 1301"
    assert told.fits[0].latency_ms == pytest.approx(one.latency_ms)
    near = explain_measurement(NETWORK, _request(), one.latency_ms, 1290.0)
    assert not any("observed" in fit.change for fit in near.fits)
