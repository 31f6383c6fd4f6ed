"""Verdicts made by hand, as earlier runs of bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeres.core.verdict import (
    ImageRecord,
    LatencyStats,
    Outcome,
    PairedLatency,
    PastRun,
    Platform,
)


def series(samples_ms: Sequence[float], block: int = 20) -> LatencyStats:
    """Returns a latency of these samples in blocks of `block`."""
    ordered = sorted(samples_ms)
    median = (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2
    return LatencyStats(
        samples_ms=tuple(samples_ms),
        p50_ms=median,
        p90_ms=median,
        p95_ms=median,
        p99_ms=median,
        mean_ms=median,
        blocks=tuple(number // block for number in range(len(samples_ms))),
    )


def latency(engine_ms: float, reference_ms: float = 4.0, count: int = 400) -> PairedLatency:
    """Returns constant latencies."""
    return PairedLatency(
        mode="end-to-end, batch 1",
        batch_size=1,
        engine=series([engine_ms] * count),
        reference=series([reference_ms] * count),
    )


RUN = PastRun(
    name="old",
    engine="old.onnx",
    target="onnxruntime",
    precision="int8",
    passed=True,
    outcome=Outcome.PASS,
    samples=1000,
    top1=0.9,
    drop_pp=0.0,
    ci95_pp=(-0.5, 0.5),
    images=ImageRecord(fingerprint="f", reference="1" * 1000, engine="1" * 900 + "0" * 100),
    reference_sha256="a" * 64,
    machine="a processor",
    platform=Platform(kind="a processor", power_mode=None, versions={}),
    latency=latency(2.0),
    disturbances=(),
    joules_per_image=None,
)


def with_correct(run: PastRun, correct: str) -> PastRun:
    """Returns the run with other images correct."""
    return replace(
        run, images=replace(run.images, engine=correct), top1=correct.count("1") / len(correct)
    )
