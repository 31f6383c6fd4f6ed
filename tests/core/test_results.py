"""The JSON of `bench --json`, key by key, and what is derived from the figures."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from verdict_parts import ENVIRONMENT

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.precision import Precision
from edgeres.core.verdict import (
    EXIT_ACCURACY,
    EXIT_PASS,
    EXIT_SPEED,
    Accuracy,
    Answer,
    Check,
    ClassDifference,
    Confidence,
    DataRecord,
    Drift,
    FileRecord,
    Flip,
    ImageRecord,
    LatencyIntervals,
    LatencyStats,
    LogitError,
    Outcome,
    Outliers,
    PairedAccuracy,
    PairedLatency,
    Provenance,
    TailCount,
    Verdict,
)
from edgeres.serialization import to_json

ACCURACY = PairedAccuracy(
    reference=Accuracy(samples=8, correct=6, correct_top5=8),
    engine=Accuracy(samples=8, correct=5, correct_top5=7),
    gained=1,
    lost=2,
    drop_pp=12.5,
    ci95_pp=(-30.0, 50.0),
    p_value=1.0,
    agreement=0.5,
    logits=LogitError(cosine=0.9, lowest_cosine=0.8, relative_l2=0.1),
    reference_confidence=Confidence(mean=0.9, ece=0.1),
    engine_confidence=Confidence(mean=0.8, ece=0.2),
    flips=(
        Flip(
            index=3,
            name="a.png",
            label=1,
            reference=Answer(label=2, probability=0.5),
            engine=Answer(label=0, probability=0.75),
        ),
    ),
    by_class=(ClassDifference(label=1, samples=4, gained=1, lost=2, p_value=1.0, q_value=1.0),),
    images=ImageRecord(fingerprint="f", reference="1", engine="0"),
)
ENGINE = LatencyStats(
    samples_ms=(1.0, 3.0),
    p50_ms=2.0,
    p90_ms=2.8,
    p95_ms=2.9,
    p99_ms=2.98,
    mean_ms=2.0,
    started_ms=(0.0, 1.5),
    blocks=(0, 0),
    ci95=LatencyIntervals(
        p50_ms=(1.0, 3.0), p90_ms=None, p95_ms=None, p99_ms=None, mean_ms=(1.0, 3.0)
    ),
    drift=Drift(change=0.1, p_value=0.5),
    outliers=Outliers(limit_ms=9.0, count=0, largest_ms=3.0),
    tails=(TailCount(percentile=90, needed=64, had=2),),
)
LATENCY = PairedLatency(
    mode="end-to-end, batch 2",
    batch_size=2,
    engine=ENGINE,
    reference=LatencyStats(
        samples_ms=(5.0,), p50_ms=5.0, p90_ms=5.0, p95_ms=5.0, p99_ms=5.0, mean_ms=5.0
    ),
    speedup_ci95=(2.0, 3.0),
    overhead_ms=0.001,
)
DROP = Check(
    name="accuracy_drop",
    limit=0.3,
    value=12.5,
    outcome=Outcome.FAIL,
    exit_code=EXIT_ACCURACY,
    reason="too few",
    images_needed=900,
)
SPEEDUP = Check(name="speedup", limit=2.0, value=2.5, outcome=Outcome.PASS, exit_code=EXIT_SPEED)
COMPARISON = Verdict(
    accuracy=ACCURACY,
    latency=LATENCY,
    environment=ENVIRONMENT,
    checks=(DROP, SPEEDUP),
    warnings=("few images",),
    energy_reason="no meter",
    layers=(
        LayerPrecision(name="conv1", op_type="Conv", precision=Precision.INT8, joined="add1"),
        LayerPrecision(
            name="fc", op_type="Gemm", precision=Precision.FP32, reason="the classifier"
        ),
    ),
    classes=("cat", "dog", "owl"),
    provenance=Provenance(
        command=("edgeres", "bench", "e"),
        started="2026-01-01T00:00:00+00:00",
        engine=FileRecord(path="e", sha256="1"),
        reference=FileRecord(path="r", sha256="2"),
        model_sha256="2",
        table_sha256=None,
        data=DataRecord(path="d", fingerprint="f", samples=8, seed=0),
        target="onnxruntime",
        precision="int8",
        versions={"onnxruntime": "1"},
    ),
)


def as_text(comparison: Verdict) -> dict[str, Any]:
    """Returns the JSON after a way through text."""
    told: dict[str, Any] = json.loads(json.dumps(to_json(comparison), allow_nan=False))
    return told


def test_the_json_of_bench() -> None:
    """Keys and values that a CI job reads, after a way through text."""
    told = as_text(COMPARISON)
    assert (told["schema_version"], told["kind"]) == (1, "edgeres-verdict")
    assert (told["passed"], told["exit_code"]) == (False, 3)
    assert told["throughput"] == {
        "engine_images_per_s": 1000.0,
        "reference_images_per_s": 400.0,
        "streams": None,
        "measured": None,
    }
    assert told["environment"]["cpu"] == "A processor"
    assert list(told["environment"])[-2:] == ["engine", "reference"]
    assert told["environment"]["engine"] == "resnet20.int8.onnx on onnxruntime-cpu"
    assert told["warnings"] == ["few images"]
    assert (told["energy"], told["energy_reason"], told["stability"]) == (None, "no meter", None)
    assert [(c["name"], c["limit"], c["value"], c["passed"]) for c in told["checks"]] == [
        ("accuracy_drop", 0.3, 12.5, False),
        ("speedup", 2.0, 2.5, True),
    ]
    assert told["checks"][0]["reason"] == "too few"
    assert told["checks"][0]["images_needed"] == 900


def test_the_json_of_an_accuracy() -> None:
    """Both networks, their difference, every changed image and every class that changed."""
    told = as_text(COMPARISON)["accuracy"]
    assert told == {
        "samples": 8,
        "reference": {"top1": 0.75, "top5": 1.0, "correct": 6},
        "engine": {"top1": 0.625, "top5": 0.875, "correct": 5},
        "drop_pp": 12.5,
        "ci95_pp": [-30.0, 50.0],
        "flips": {
            "gained": 1,
            "lost": 2,
            "other": 1,
            "images": [
                {
                    "index": 3,
                    "name": "a.png",
                    "label": 1,
                    "reference": {"label": 2, "probability": 0.5},
                    "engine": {"label": 0, "probability": 0.75},
                    "kind": "other",
                }
            ],
        },
        "p_value": 1.0,
        "agreement": 0.5,
        "logits": {"cosine": 0.9, "lowest_cosine": 0.8, "relative_l2": 0.1, "sqnr_db": 20.0},
        "confidence": {"reference": {"mean": 0.9, "ece": 0.1}, "engine": {"mean": 0.8, "ece": 0.2}},
        "by_class": [
            {
                "label": 1,
                "samples": 4,
                "gained": 1,
                "lost": 2,
                "p_value": 1.0,
                "q_value": 1.0,
                "drop_pp": 25.0,
            }
        ],
        "images": {"fingerprint": "f", "reference": "1", "engine": "0"},
    }


def test_the_json_of_a_latency() -> None:
    """Figures with their intervals, trend, outliers and counts, and every sample with its time."""
    told = as_text(COMPARISON)["latency"]
    assert (told["mode"], told["batch_size"]) == ("end-to-end, batch 2", 2)
    assert (told["speedup"], told["speedup_ci95"], told["overhead_ms"]) == (2.5, [2.0, 3.0], 0.001)
    assert told["engine"] == {
        "p50_ms": 2.0,
        "p90_ms": 2.8,
        "p95_ms": 2.9,
        "p99_ms": 2.98,
        "mean_ms": 2.0,
        "samples": 2,
        "ci95": {
            "p50_ms": [1.0, 3.0],
            "p90_ms": None,
            "p95_ms": None,
            "p99_ms": None,
            "mean_ms": [1.0, 3.0],
        },
        "drift": {"change": 0.1, "p_value": 0.5},
        "outliers": {"limit_ms": 9.0, "count": 0, "largest_ms": 3.0},
        "tails": [{"percentile": 90, "needed": 64, "had": 2, "enough": False}],
        "samples_ms": [1.0, 3.0],
        "started_ms": [0.0, 1.5],
        "blocks": [0, 0],
    }


def test_the_json_of_a_provenance() -> None:
    """Which files, images and versions, and the command."""
    told = as_text(COMPARISON)["provenance"]
    assert told["command"] == ["edgeres", "bench", "e"]
    assert told["engine"] == {"path": "e", "sha256": "1"}
    assert told["data"] == {"path": "d", "fingerprint": "f", "samples": 8, "seed": 0}
    assert told["versions"] == {"onnxruntime": "1"}


def test_the_json_of_a_network() -> None:
    """Its classes, and its layers with a count of their precisions."""
    assert as_text(COMPARISON)["network"] == {
        "classes": ["cat", "dog", "owl"],
        "precisions": {"int8": 1, "fp32": 1},
        "layers": [
            {
                "name": "conv1",
                "op_type": "Conv",
                "precision": "int8",
                "reason": "",
                "joined": "add1",
            },
            {
                "name": "fc",
                "op_type": "Gemm",
                "precision": "fp32",
                "reason": "the classifier",
                "joined": "",
            },
        ],
    }


@pytest.mark.parametrize(
    ("reference", "engine", "kind"), [(2, 1, "gained"), (1, 0, "lost"), (2, 0, "other")]
)
def test_a_flip_is_of_the_kind_that_the_label_makes_it(
    reference: int, engine: int, kind: str
) -> None:
    """The label is 1."""
    sure = Answer(label=reference, probability=0.5), Answer(label=engine, probability=0.5)
    flip = Flip(index=0, name="a", label=1, reference=sure[0], engine=sure[1])
    assert flip.kind == kind


def test_no_noise_has_no_ratio() -> None:
    """JSON knows no infinity."""
    exact = LogitError(cosine=1.0, lowest_cosine=1.0, relative_l2=0.0)
    nothing = LogitError(cosine=1.0, lowest_cosine=1.0, relative_l2=None)
    assert exact.sqnr_db is nothing.sqnr_db is None


def test_what_was_not_measured_is_null() -> None:
    """No latency and too few classes for a top 5: the keys stay, their value is null."""
    few = Accuracy(samples=8, correct=6, correct_top5=None)
    accuracy = replace(ACCURACY, reference=few, engine=few)
    raw = to_json(replace(COMPARISON, accuracy=accuracy, latency=None))
    assert (raw["latency"], raw["throughput"]) == (None, None)
    assert raw["accuracy"]["reference"] == {"top1": 0.75, "top5": None, "correct": 6}


def test_outcome_and_code_follow_from_the_checks() -> None:
    """Both are in the JSON, beside whether the code is 0."""
    undecided = replace(DROP, outcome=Outcome.INCONCLUSIVE)
    cases = {
        (SPEEDUP,): (Outcome.PASS, True, EXIT_PASS),
        (SPEEDUP, DROP): (Outcome.FAIL, False, EXIT_ACCURACY),
        (undecided, SPEEDUP): (Outcome.INCONCLUSIVE, False, EXIT_ACCURACY),
        (): (Outcome.MEASURED, True, EXIT_PASS),
    }
    for checks, (outcome, passed, code) in cases.items():
        verdict = replace(COMPARISON, checks=checks)
        assert (verdict.outcome, verdict.passed, verdict.exit_code) == (outcome, passed, code)
        raw = to_json(verdict)
        assert (raw["outcome"], raw["passed"], raw["exit_code"]) == (outcome.value, passed, code)
