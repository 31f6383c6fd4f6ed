"""Predictions of two networks on the same images, and their latencies, made by hand."""

from __future__ import annotations

import numpy as np

from edgeres.core.verdict import LatencyStats, PairedAccuracy, PairedLatency
from edgeres.evaluation.compare import paired_accuracy
from edgeres.evaluation.evaluate import Distances, Outcomes, Predictions


def predictions(rank: list[int]) -> Predictions:
    """Returns the answers of a network of ten classes with these ranks of the label."""
    size = len(rank)
    return Predictions(
        classes=10,
        top1=np.zeros(size, np.int64),
        rank=np.array(rank, np.int64),
        confidence=np.ones(size, np.float32),
    )


def outcomes(reference: list[int], engine: list[int]) -> Outcomes:
    """Returns a pair of answers to the same images."""
    size = len(reference)
    return Outcomes(
        indices=np.arange(size),
        labels=np.zeros(size, np.int64),
        hashes=("",) * size,
        reference=predictions(reference),
        engine=predictions(engine),
        distances=Distances(cosine=np.ones(size), error=np.zeros(size), signal=np.ones(size)),
    )


def accuracy_of(
    newly_correct: int, newly_wrong: int, samples: int, both: int = 0
) -> PairedAccuracy:
    """Returns the accuracy of a pair with these flips and `both` images correct in both."""
    neither = samples - newly_correct - newly_wrong - both
    return paired_accuracy(
        outcomes(
            [1] * newly_correct + [0] * newly_wrong + [0] * both + [1] * neither,
            [0] * newly_correct + [1] * newly_wrong + [0] * both + [1] * neither,
        )
    )


def latency_of(engine_ms: float, reference_ms: float) -> PairedLatency:
    """Returns a pair of constant latencies, their ratio without any doubt."""
    engine, reference = (
        LatencyStats(
            samples_ms=(ms,), blocks=(0,), p50_ms=ms, p90_ms=ms, p95_ms=ms, p99_ms=ms, mean_ms=ms
        )
        for ms in (engine_ms, reference_ms)
    )
    ratio = reference_ms / engine_ms
    return PairedLatency(
        mode="test",
        batch_size=1,
        engine=engine,
        reference=reference,
        speedup_ci95=(ratio, ratio),
    )
