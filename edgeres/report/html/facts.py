"""What a page says beside its tables and figures: pairs of a name and a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.verdict import (
    Confidence,
    LatencyStats,
    LoadGenResult,
    PairedAccuracy,
    PairedLatency,
    Provenance,
    Regression,
    Verdict,
)
from edgeres.machine import Severity, Stability
from edgeres.report.table import DRIFT_NOTED, DRIFT_SURE, SIGNIFICANCE
from edgeres.report.words import (
    count,
    fact_pairs,
    milliseconds,
    percent,
    points,
    probability,
)

Facts = Iterator[tuple[str, str]]


def accuracy_facts(accuracy: PairedAccuracy) -> Facts:
    """Yields the drop with its certainty, and how alike the two networks answer."""
    low, high = accuracy.ci95_pp
    yield "drop of top-1", points(accuracy.drop_pp)
    yield "95 % interval", f"{points(low, unit=False)} to {points(high)}"
    yield "p value", f"{probability(accuracy.p_value)}, {_significance(accuracy)}"
    if accuracy.agreement is not None:
        yield "same label", f"{percent(accuracy.agreement)} of the images"
    if accuracy.logits is not None:
        yield from _logit_facts(accuracy.logits.to_dict())
    sure = accuracy.reference_confidence, accuracy.engine_confidence
    if sure[0] is not None and sure[1] is not None:
        yield (
            "confidence",
            f"{_confidence(sure[0])} in the reference, {_confidence(sure[1])} in the engine",
        )


def _significance(accuracy: PairedAccuracy) -> str:
    if accuracy.p_value >= SIGNIFICANCE:
        return "not significant: chance alone can make such a difference (exact McNemar test)"
    kind = "drop" if accuracy.lost > accuracy.gained else "gain"
    return f"a significant {kind} (exact McNemar test)"


def _logit_facts(logits: Mapping[str, Any]) -> Facts:
    noise = logits["sqnr_db"]
    ratio = "" if noise is None else f", signal to noise {noise:.1f} dB"
    error = logits["relative_l2"]
    yield (
        "logits",
        f"cosine {logits['cosine']:.5f} on average, {logits['lowest_cosine']:.4f} at worst{ratio}"
        + ("" if error is None else f", relative error {percent(error)}"),
    )


def _confidence(found: Confidence) -> str:
    return f"{percent(found.mean, 1)} on average, off by {percent(found.ece, 1)} (ECE)"


def latency_facts(latency: PairedLatency) -> Facts:
    """Yields the speed-up, then drift, outliers and doubtful percentiles of each network."""
    ends = latency.speedup_ci95
    interval = f", 95 % interval {ends[0]:.2f} to {ends[1]:.2f}" if ends else ""
    yield "speed-up", f"{latency.speedup:.2f} times at the median{interval}"
    for role, stats in (("reference", latency.reference), ("engine", latency.engine)):
        yield from ((f"{name}, {role}", sentence) for name, sentence in _stats_facts(stats))
    if latency.overhead_ms is not None:
        share = percent(latency.overhead_ms / latency.engine.p50_ms)
        yield (
            "own overhead",
            f"{latency.overhead_ms:.5f} ms a sample, {share} of the engine's median",
        )


def _stats_facts(stats: LatencyStats) -> Facts:
    if stats.drift is not None:
        change, p_value = stats.drift.change, stats.drift.p_value
        sure = p_value <= DRIFT_SURE and abs(change) >= DRIFT_NOTED
        seen = "a trend" if sure else "no trend to speak of"
        yield (
            "drift",
            f"{100 * change:+.1f}\N{NO-BREAK SPACE}% from start to end, {seen} (p {probability(p_value)})",
        )
    if stats.outliers is not None and stats.outliers.count:
        far = stats.outliers
        yield (
            "outliers",
            f"{count(far.count)} above {milliseconds(far.limit_ms)} ms, "
            f"the largest {milliseconds(far.largest_ms)} ms; counted, none dropped",
        )
    short = [tail for tail in stats.tails if not tail.enough]
    if short:
        words = ", ".join(f"p{t.percentile} ({count(t.needed)})" for t in short)
        yield "too few samples", f"{count(short[0].had)} are not enough for {words}"


def loadgen_facts(found: LoadGenResult) -> Facts:
    """Yields what LoadGen said of its run, in its own words."""
    value = "not told" if found.value is None else f"{found.value:.4g} {found.unit}"
    yield "scenario", found.scenario
    yield "result", ": ".join((found.result, *found.reasons))
    yield found.metric, value
    yield "queries", f"{count(found.queries)}, {found.seconds:g} s asked for"
    if found.logs is not None:
        yield "its logs", found.logs


def regression_facts(regression: Regression) -> Facts:
    """Yields how the engine stands against that of the earlier run."""
    accuracy, latency = regression.accuracy, regression.latency
    low, high = (points(end, unit=False) for end in accuracy.ci95_pp)
    yield "earlier run", regression.baseline
    yield "images since", f"{count(accuracy.lost)} lost, {count(accuracy.gained)} gained"
    yield (
        "drop since",
        (
            f"{points(accuracy.drop_pp)}, 95 % interval {low} to {high}, "
            f"p value {probability(accuracy.p_value)}"
        ),
    )
    if latency is None:
        yield "latency since", f"not compared: {regression.latency_reason}"
        return
    ends = f", 95 % interval {latency.ci95[0]:.3f} to {latency.ci95[1]:.3f}" if latency.ci95 else ""
    yield (
        "latency since",
        (
            f"{latency.ratio:.3f} times{ends}, each against the reference of its own run; "
            f"{latency.raw_ratio:.3f} times as it was timed"
        ),
    )


def environment_facts(comparison: Verdict) -> Facts:
    """Yields what is known of the machine; the networks' names stand elsewhere."""
    return fact_pairs(comparison.environment.machine.to_dict())


def stability_facts(stability: Stability) -> Facts:
    """Yields what disturbed the measurement, and what the machine does not tell."""
    for finding in stability.findings:
        yield finding.severity.value, finding.sentence
    yield "watched for", f"{stability.seconds:.0f} s, {count(len(stability.samples))} looks"
    if stability.unseen:
        yield "not told here", ", ".join(stability.unseen)


def disturbances(stability: Stability | None) -> list[str]:
    """Returns what makes the figures of time and energy another machine's."""
    found = () if stability is None else stability.findings
    return [one.sentence for one in found if one.severity is Severity.UNSTABLE]


def provenance_facts(provenance: Provenance) -> Facts:
    """Yields files with their hashes, images, target and versions."""
    yield "measured", provenance.started
    yield "engine", f"{provenance.engine.path}, sha256 {provenance.engine.sha256}"
    yield "reference", f"{provenance.reference.path}, sha256 {provenance.reference.sha256}"
    yield "built from the model", provenance.model_sha256 or "not recorded"
    yield "with the table", provenance.table_sha256 or "none"
    data = provenance.data
    yield "images", f"{count(data.samples)} of {data.path}, seed {data.seed}"
    yield "their fingerprint", data.fingerprint
    yield "target", f"{provenance.precision} for {provenance.target}"
    yield "built with", ", ".join(f"{k} {v}" for k, v in provenance.versions.items())


def float_reasons(layers: Iterable[LayerPrecision]) -> list[tuple[str, str]]:
    """Returns each reason with the layers that it holds for."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        if layer.reason:
            found.setdefault(layer.reason, []).append(layer.name)
    return [(_listed(names), reason) for reason, names in found.items()]


def _listed(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
