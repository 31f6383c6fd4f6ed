"""A verdict with everything in it, made of fixed numbers, for the tests of the reports."""

from __future__ import annotations

import io
import random
from dataclasses import replace

from PIL import Image
from verdict_parts import ENVIRONMENT, PROVENANCE

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.precision import Precision
from edgeres.core.verdict import (
    EXIT_ACCURACY,
    EXIT_SPEED,
    Accuracy,
    AccuracyChange,
    Answer,
    Check,
    ClassDifference,
    Confidence,
    Drift,
    Energies,
    Flip,
    ImageRecord,
    LatencyChange,
    LatencyIntervals,
    LatencyStats,
    LoadGenResult,
    LogitError,
    Outcome,
    Outliers,
    PairedAccuracy,
    PairedLatency,
    Regression,
    TailCount,
    Verdict,
)
from edgeres.machine import CpuState, Energy, Sample, Severity, Stability, StabilityFinding
from edgeres.report.html import Picture

CLASSES = tuple(f"animal {number}" for number in range(10))
BLOCK = 20
REASON = "the classifier decides the label, and in INT8 saved no time"


def flip(index: int, label: int, reference: int, engine: int) -> Flip:
    """Returns a changed label; the later the image, the surer the engine and the less the other."""
    share = (index % 50) / 100
    return Flip(
        index=index,
        name=f"val/{CLASSES[label]}/image_{index:05d}.jpg",
        label=label,
        reference=Answer(label=reference, probability=0.9 - share),
        engine=Answer(label=engine, probability=0.4 + share),
    )


def flips(lost: int, gained: int, other: int) -> tuple[Flip, ...]:
    """Returns so many changed labels of each kind, one image after the other."""
    kinds = [(3, 3, 5)] * lost + [(4, 6, 4)] * gained + [(7, 8, 9)] * other
    return tuple(flip(index, *kind) for index, kind in enumerate(kinds))


def stats(median_ms: float, *, seed: int, start_ms: float, count: int = 200) -> LatencyStats:
    """Returns samples about a median with a few far outliers, in blocks that leave gaps."""
    rng = random.Random(seed)
    samples = [median_ms * rng.lognormvariate(0, 0.03) for _ in range(count)]
    for far in range(17, count, 61):
        samples[far] *= 1.8
    started = [
        start_ms + 60 * median_ms * (i // BLOCK) + 1.05 * median_ms * (i % BLOCK)
        for i in range(count)
    ]
    ordered = sorted(samples)
    p50, p90, p95, p99 = (ordered[int(share * (count - 1))] for share in (0.5, 0.9, 0.95, 0.99))
    around = (0.98 * p50, 1.02 * p50)
    return LatencyStats(
        samples_ms=tuple(samples),
        p50_ms=p50,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        mean_ms=sum(samples) / count,
        started_ms=tuple(started),
        blocks=tuple(i // BLOCK for i in range(count)),
        ci95=LatencyIntervals(
            p50_ms=around, p90_ms=(0.98 * p90, 1.03 * p90), p95_ms=None, p99_ms=None, mean_ms=around
        ),
        drift=Drift(change=0.004, p_value=0.41),
        outliers=Outliers(
            limit_ms=1.3 * median_ms,
            count=sum(value > 1.3 * median_ms for value in samples),
            largest_ms=max(samples),
        ),
        tails=(
            TailCount(percentile=90, needed=64, had=count),
            TailCount(percentile=99, needed=662, had=count),
        ),
    )


def layers() -> tuple[LayerPrecision, ...]:
    """Returns the layers of a small ResNet with a classifier in float."""
    names = ["/conv1/Conv"]
    for stage in (1, 2, 3):
        for block in range(3):
            base = f"/layer{stage}/layer{stage}.{block}"
            names += [f"{base}/conv1/Conv", f"{base}/conv2/Conv", f"{base}/Add"]
    inside = [
        LayerPrecision(name=n, op_type=n.split("/")[-1], precision=Precision.INT8) for n in names
    ]
    head = LayerPrecision(name="/fc/Gemm", op_type="Gemm", precision=Precision.FP32, reason=REASON)
    return (*inside, head)


ACCURACY = PairedAccuracy(
    reference=Accuracy(samples=1300, correct=1054, correct_top5=1240),
    engine=Accuracy(samples=1300, correct=1051, correct_top5=1241),
    gained=9,
    lost=12,
    drop_pp=100 * 3 / 1300,
    ci95_pp=(-0.48, 0.98),
    p_value=0.6636,
    agreement=1 - 26 / 1300,
    images=ImageRecord(fingerprint="4d" * 32, reference="1", engine="1"),
    logits=LogitError(cosine=0.9991, lowest_cosine=0.961, relative_l2=0.043),
    reference_confidence=Confidence(mean=0.832, ece=0.024),
    engine_confidence=Confidence(mean=0.829, ece=0.022),
    flips=flips(12, 9, 5),
    by_class=(
        ClassDifference(label=3, samples=130, gained=0, lost=12, p_value=0.0005, q_value=0.005),
        ClassDifference(label=4, samples=130, gained=9, lost=0, p_value=0.004, q_value=0.02),
    ),
)

LATENCY = PairedLatency(
    mode="end-to-end, batch 1: resnet20.int8.onnx against resnet20.onnx on onnxruntime-cpu",
    batch_size=1,
    engine=stats(5.9, seed=1, start_ms=1100.0),
    reference=stats(17.5, seed=2, start_ms=0.0),
    speedup_ci95=(2.91, 3.02),
    overhead_ms=0.0002,
)

DROP = Check(
    name="accuracy_drop",
    limit=0.5,
    value=0.91,
    outcome=Outcome.INCONCLUSIVE,
    exit_code=EXIT_ACCURACY,
    reason="1300 images cannot decide: accuracy drop 0.231 pp, -0.42 to 0.91 pp (one-sided 95 % "
    "bounds), and the drop limit of 0.5 pp is within",
    next_step="8,500 more images, about 9,800 in all, would show that the drop is below the limit",
    rule="bound",
    images_needed=9800,
)

LOST = replace(
    DROP,
    outcome=Outcome.FAIL,
    limit=0.1,
    reason="accuracy drop 0.231 pp, at least 0.12 pp (one-sided 95 % bound): over the drop limit of "
    "0.1 pp",
    next_step="",
    images_needed=None,
)

SPEEDUP = Check(
    name="speedup",
    limit=2.0,
    value=LATENCY.speedup,
    outcome=Outcome.PASS,
    exit_code=EXIT_SPEED,
    reason="2.97 times as fast, at least the 2 requested",
)

STABILITY = Stability(
    samples=tuple(Sample(at_s=at, cpu=CpuState(), temperatures_c={}) for at in (0.0, 12.3)),
    findings=(
        StabilityFinding(
            name="g", severity=Severity.WARNING, sentence="The governor is powersave."
        ),
    ),
    unavailable=("temperatures",),
)


def energy(joules: float) -> Energy:
    """Returns what 100 images cost on one rail."""
    return Energy(
        meter="ina3221",
        scope=("VDD_IN",),
        images=100,
        seconds=1.0,
        total_joules=joules + 5,
        idle_watts=5.0,
    )


VERDICT = Verdict(
    accuracy=ACCURACY,
    latency=LATENCY,
    environment=ENVIRONMENT,
    provenance=PROVENANCE,
    checks=(DROP, SPEEDUP),
    warnings=("12 of the 1300 images were also used for calibration.",),
    stability=STABILITY,
    energy_reason="No meter: neither a power rail nor NVML is here.",
    layers=layers(),
    classes=CLASSES,
)

PASSED = replace(VERDICT, checks=(SPEEDUP,))

FAILED = replace(VERDICT, checks=(LOST, SPEEDUP))

SHAKEN = replace(
    VERDICT,
    stability=replace(
        STABILITY,
        findings=(
            StabilityFinding(name="s", severity=Severity.UNSTABLE, sentence="The clocks fell."),
        ),
    ),
)

METERED = replace(
    VERDICT,
    energy=Energies(engine=energy(0.9), reference=energy(2.6)),
    energy_reason=None,
)

REGRESSION = Regression(
    baseline="last_week",
    baseline_disturbances=(),
    accuracy=AccuracyChange(
        gained=2, lost=6, drop_pp=100 * 4 / 1300, ci95_pp=(-0.14, 0.81), p_value=0.289
    ),
    latency=LatencyChange(ratio=1.02, ci95=(0.99, 1.05), raw_ratio=1.3),
    latency_reason=None,
)

LOADGEN = LoadGenResult(
    scenario="single-stream",
    valid=False,
    metric="90th percentile latency",
    value=6.14,
    unit="ms",
    queries=1234,
    seconds=10.0,
    reasons=("Too few queries.",),
    logs=None,
)

BARE = Verdict(
    accuracy=replace(ACCURACY, flips=(), by_class=()),
    latency=None,
    environment=ENVIRONMENT,
    provenance=PROVENANCE,
    checks=(),
)


def picture(shade: int, side: int = 32) -> Picture:
    """Returns a thumbnail of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (side, side), (shade % 256, 120, 200)).save(file, "JPEG", quality=75)
    return Picture(jpeg=file.getvalue(), side=side)


def named(verdict: Verdict, engine: str = "engine", reference: str = "reference") -> Verdict:
    """Returns a verdict on networks of these names."""
    names = replace(verdict.environment, engine_name=engine, reference_name=reference)
    return replace(verdict, environment=names)
