"""The JSON of `bench --json`, key by key, and what is derived from the figures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from edgeres.results import (
    EXIT_ACCURACY,
    EXIT_PASS,
    EXIT_SPEED,
    Accuracy,
    Check,
    Comparison,
    LatencyStats,
    PairedAccuracy,
    PairedLatency,
)

ACCURACY = PairedAccuracy(
    reference=Accuracy(samples=8, correct=6, correct_top5=8),
    engine=Accuracy(samples=8, correct=5, correct_top5=7),
    gained=1,
    lost=2,
    drop_pp=12.5,
    ci95_pp=(-30.0, 50.0),
    p_value=1.0,
)
LATENCY = PairedLatency(
    mode="end-to-end, batch 2",
    batch_size=2,
    engine=LatencyStats(
        samples_ms=(1.0, 3.0), p50_ms=2.0, p90_ms=2.8, p95_ms=2.8, p99_ms=2.98, mean_ms=2.0
    ),
    reference=LatencyStats(
        samples_ms=(5.0,), p50_ms=5.0, p90_ms=5.0, p95_ms=5.0, p99_ms=5.0, mean_ms=5.0
    ),
)
DROP = Check(name="accuracy_drop", limit=0.3, value=12.5, passed=False, exit_code=EXIT_ACCURACY)
SPEEDUP = Check(name="speedup", limit=2.0, value=2.5, passed=True, exit_code=EXIT_SPEED)
COMPARISON = Comparison(
    accuracy=ACCURACY,
    latency=LATENCY,
    environment={"cpu": "a processor"},
    checks=(DROP, SPEEDUP),
    warnings=("few images",),
)


def test_the_json_of_bench() -> None:
    """Every key and every value, after a way through text."""
    assert json.loads(json.dumps(COMPARISON.to_dict(), allow_nan=False)) == {
        "schema_version": 1,
        "passed": False,
        "accuracy": {
            "samples": 8,
            "reference": {"top1": 0.75, "top5": 1.0, "correct": 6},
            "engine": {"top1": 0.625, "top5": 0.875, "correct": 5},
            "drop_pp": 12.5,
            "ci95_pp": [-30.0, 50.0],
            "flips": {"gained": 1, "lost": 2},
            "p_value": 1.0,
        },
        "latency": {
            "mode": "end-to-end, batch 2",
            "batch_size": 2,
            "engine": {
                "p50_ms": 2.0,
                "p90_ms": 2.8,
                "p99_ms": 2.98,
                "mean_ms": 2.0,
                "samples": 2,
            },
            "reference": {
                "p50_ms": 5.0,
                "p90_ms": 5.0,
                "p99_ms": 5.0,
                "mean_ms": 5.0,
                "samples": 1,
            },
            "speedup": 2.5,
        },
        "throughput": {"engine_images_per_s": 1000.0, "reference_images_per_s": 400.0},
        "energy": None,
        "environment": {"cpu": "a processor"},
        "checks": [
            {"name": "accuracy_drop", "limit": 0.3, "value": 12.5, "passed": False},
            {"name": "speedup", "limit": 2.0, "value": 2.5, "passed": True},
        ],
        "warnings": ["few images"],
    }


def test_what_was_not_measured_is_null() -> None:
    """No latency and too few classes for a top 5: the keys stay, their value is null."""
    few = Accuracy(samples=8, correct=6, correct_top5=None)
    accuracy = replace(ACCURACY, reference=few, engine=few)
    raw = replace(COMPARISON, accuracy=accuracy, latency=None).to_dict()
    assert (raw["latency"], raw["throughput"]) == (None, None)
    assert raw["accuracy"]["reference"] == {"top1": 0.75, "top5": None, "correct": 6}


@pytest.mark.parametrize(
    ("drop_passes", "speed_passes", "code"),
    [
        (True, True, EXIT_PASS),
        (False, True, EXIT_ACCURACY),
        (True, False, EXIT_SPEED),
        (False, False, EXIT_ACCURACY),
    ],
)
def test_the_exit_code_is_that_of_the_first_failed_check(
    drop_passes: bool, speed_passes: bool, code: int
) -> None:
    """Accuracy before speed, in whatever order the checks stand."""
    checks = (replace(SPEEDUP, passed=speed_passes), replace(DROP, passed=drop_passes))
    for order in (checks, checks[::-1]):
        verdict = replace(COMPARISON, checks=order)
        assert (verdict.exit_code, verdict.passed) == (code, code == EXIT_PASS)


def test_no_checks_pass() -> None:
    """Where no limit was set none is missed."""
    verdict = replace(COMPARISON, checks=())
    assert (verdict.passed, verdict.exit_code) == (True, EXIT_PASS)
