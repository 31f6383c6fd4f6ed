"""A verdict's facts in words, each worked out once: terminal, HTML, Markdown and JUnit lay them out.

What has a limit, a threshold or a test behind it is decided here and nowhere else. Numbers are
joined to their signs by no-break spaces; a terminal writes plain ones, for searches in a log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from edgeres.core.artifacts import LayerPrecision
from edgeres.core.bench_requests import Decision
from edgeres.core.verdict import (
    ClassDifference,
    Energies,
    Flip,
    FlipKind,
    Interval,
    LatencyChange,
    LatencyStats,
    LoadGenResult,
    MeasuredThroughput,
    PairedAccuracy,
    PairedLatency,
    Provenance,
    Regression,
    Verdict,
)
from edgeres.machine import Severity, Stability
from edgeres.plurals import plural
from edgeres.report.words import (
    class_name,
    count,
    fact_pairs,
    milliseconds,
    percent,
    points,
    probability,
)
from edgeres.serialization import to_json

SIGNIFICANCE = 0.05
"""Two-sided level below which a p value is called significant. It goes with the 95 % interval:
whatever is significant has an interval without 0. McNemar's test is exact and so the stricter of
the two; an interval may leave out 0 by a hair at p values of up to 0.058."""

TREND_P_VALUE, TREND_CHANGE = 0.01, 0.02
"""p value up to which, and change from which, a drift is called a trend: one in a hundred quiet
runs, and what trtexec's 2.5 % of variation would hide."""

CLASSES_NAMED = 5
"""Classes that are named before the rest is counted."""

FLIP_NAMES: Mapping[FlipKind, str] = {
    FlipKind.LOST: "newly wrong",
    FlipKind.GAINED: "newly correct",
    FlipKind.OTHER: "wrong in both",
}
"""What a changed label did, the worst first."""

Facts = Iterator[tuple[str, str]]
"""Names, each with a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Top1Change:
    """A difference of top-1 accuracy: a drop, or a gain with a plus sign."""

    is_gain: bool
    value: str
    interval: str
    """95 % interval, in the direction of `value`."""

    @property
    def name(self) -> str:
        """What stands before the value in a table."""
        return "top-1" if self.is_gain else "top-1 drop"

    @property
    def words(self) -> str:
        """Value and interval in one cell of a row that is about top-1."""
        return f"{'' if self.is_gain else 'drop '}{self.value}, 95 % interval {self.interval}"


def top1_change(drop_pp: float, ci95_pp: Interval) -> Top1Change:
    """Returns a drop in percentage points in words; below 0 it is the gain that it is."""
    low, high = ci95_pp
    # Rounded as it is shown, so that nothing is called a gain of 0.00.
    if round(drop_pp, 2) >= 0:
        interval = f"{points(low, unit=False)} to {points(high)}"
        return Top1Change(is_gain=False, value=points(drop_pp), interval=interval)
    # A gain's interval is the drop's, mirrored: its ends change places and signs.
    least, most = (f"{-round(end, 2) + 0.0:+.2f}" for end in (high, low))
    interval = f"{least} to {most}\N{NO-BREAK SPACE}pp"
    return Top1Change(is_gain=True, value=f"+{points(-drop_pp)}", interval=interval)


def significance(accuracy: PairedAccuracy) -> str:
    """Returns whether top-1 differs by more than chance makes, in words."""
    if accuracy.lost == accuracy.gained:
        return "no difference"
    kind = "drop" if accuracy.lost > accuracy.gained else "gain"
    if accuracy.p_value < SIGNIFICANCE:
        return f"a significant {kind} (exact McNemar test)"
    return f"not significant, chance alone can make such a {kind} (exact McNemar test)"


def different_classes(accuracy: PairedAccuracy) -> tuple[ClassDifference, ...]:
    """Returns the classes that differ significantly, after correction for their number."""
    return tuple(one for one in accuracy.by_class if one.q_value < SIGNIFICANCE)


def flips_by_kind(flips: Iterable[Flip]) -> dict[FlipKind, list[Flip]]:
    """Returns the changed labels by kind, the worst kind first.

    Within a kind, the most confident wrong answer comes first.
    """
    by_kind: dict[FlipKind, list[Flip]] = {kind: [] for kind in FLIP_NAMES}
    for flip in flips:
        by_kind[flip.kind].append(flip)
    for same in by_kind.values():
        # Where only the engine is correct, the reference is the one that errs.
        same.sort(
            key=lambda f: -(f.reference if f.kind is FlipKind.GAINED else f.engine).probability
        )
    return by_kind


def flip_counts(accuracy: PairedAccuracy) -> str:
    """Returns how many images changed sides, and how many are wrong in both networks."""
    words = f"{count(accuracy.lost)} newly wrong, {count(accuracy.gained)} newly correct"
    # Counted here alone: what is wrong in both changes neither accuracy nor its test.
    both_wrong = sum(flip.kind is FlipKind.OTHER for flip in accuracy.flips)
    return f"{words}, {count(both_wrong)} wrong in both" if both_wrong else words


def accuracy_facts(verdict: Verdict) -> Facts:
    """Yields how top-1 changed, how certain that is, and how alike the two networks answer."""
    accuracy = verdict.accuracy
    change = top1_change(accuracy.drop_pp, accuracy.ci95_pp)
    better = " (the engine is correct more often)" if change.is_gain else ""
    low, high = accuracy.ci95_pp
    # A drop at the limit passes, so an interval that ends there is decided; one that begins there
    # is not.
    inside = [
        f", with the limit of {check.limit:g} pp inside: more images would settle it"
        for check in verdict.checks
        if check.rule == Decision.POINT.value and low <= check.limit < high
    ]
    yield change.name, f"{change.value}{better}"
    bounds = [
        f"drop of at most {points(check.value)} (one-sided): what the limit is compared with"
        for check in verdict.checks
        if check.rule == Decision.BOUND.value
    ]
    # Both are called 95 %, and the one-sided bound lies inside of the two-sided interval.
    sides = " (two-sided)" if bounds else ""
    yield "95 % interval", change.interval + sides + "".join(inside)
    for words in bounds:
        yield "95 % bound", words
    yield "flips", flip_counts(accuracy)
    yield "p value", f"{probability(accuracy.p_value)}: {significance(accuracy)}"
    yield "agreement", f"{percent(accuracy.agreement)} of the images get the same label"
    error = accuracy.logits
    noise = "no error" if error.sqnr_db is None else f"SQNR {error.sqnr_db:.1f} dB"
    relative = "" if not error.relative_l2 else f", relative error {percent(error.relative_l2)}"
    yield (
        "logits",
        f"{noise}, cosine {error.cosine:.5f}, {error.lowest_cosine:.3f} on the worst image"
        f"{relative}",
    )
    first, second = accuracy.reference_confidence, accuracy.engine_confidence
    yield (
        "confidence",
        f"mean {percent(second.mean, 1)}, ECE {percent(second.ece)}; the reference's "
        f"{percent(first.mean, 1)}, {percent(first.ece)}",
    )
    if different := different_classes(accuracy):
        named = "; ".join(
            f"{class_name(one.label, verdict.classes)}: {one.lost} newly wrong, {one.gained} newly "
            f"correct of {one.samples}"
            for one in different[:CLASSES_NAMED]
        )
        rest = len(different) - CLASSES_NAMED
        more = f"; {rest} more" if rest > 0 else ""
        yield "classes", f"significantly different, corrected for their number: {named}{more}"


def speedup_words(latency: PairedLatency) -> str:
    """Returns the ratio of the medians with its interval."""
    ends = latency.speedup_ci95
    interval = f", 95 % interval {ends[0]:.2f} to {ends[1]:.2f}" if ends else ""
    return f"{latency.speedup:.2f} times as fast at the median{interval}"


def latency_facts(latency: PairedLatency, *, brief: bool = False) -> Facts:
    """Yields the speed-up, then drift, outliers, missing samples and timing overhead.

    Args:
        latency: of both networks.
        brief: whether what is as it should be is left out.
    """
    yield "speed-up", speedup_words(latency)
    pair = (("reference", latency.reference), ("engine", latency.engine))
    drifts = [f"{role} {words}" for role, one in pair if (words := _drift(one, brief=brief))]
    if drifts:
        yield "drift", "; ".join(drifts)
    outliers = [
        f"{role} {count(far.count)} above {milliseconds(far.limit_ms)} ms, up to "
        f"{milliseconds(far.largest_ms)} ms"
        for role, one in pair
        if (far := one.outliers) is not None and far.count
    ]
    if outliers:
        yield "outliers", f"{'; '.join(outliers)}; none was dropped"
    tails = latency.engine.tails
    if short := [tail for tail in tails if not tail.enough]:
        needs = ", ".join(f"p{tail.percentile}, which needs {count(tail.needed)}" for tail in short)
        # What the highest percentile needs is enough for all of them.
        iterations = max(tail.needed for tail in tails)
        yield (
            "samples",
            f"{count(short[0].had)}, too few for {needs}: take --iterations {iterations}",
        )
    if latency.overhead_ms is not None and not brief:
        fraction = percent(latency.overhead_ms / latency.engine.p50_ms)
        yield (
            "timing overhead",
            f"{latency.overhead_ms:.5f} ms a sample, {fraction} of the engine's median",
        )


def _drift(stats: LatencyStats, *, brief: bool) -> str:
    drift = stats.drift
    if drift is None:
        return ""
    is_trend = drift.p_value <= TREND_P_VALUE and abs(drift.change) >= TREND_CHANGE
    if brief and not is_trend:
        return ""
    change = f"{percent(abs(drift.change), 1)} {'slower' if drift.change > 0 else 'faster'}"
    certainty = f"{'a trend' if is_trend else 'no trend'} (p {probability(drift.p_value)})"
    return f"{change} from start to end, {certainty}"


def throughput_facts(throughput: MeasuredThroughput) -> Facts:
    """Yields images a second with several streams, and what was timed."""
    pair = (
        ("engine", throughput.engine, throughput.engine_ci95),
        ("the reference", throughput.reference, throughput.reference_ci95),
    )
    figures = [
        f"{role} {throughput.images_per_s(stats):.1f} images/s"
        + (f" (95 % interval {ends[0]:.1f} to {ends[1]:.1f})" if ends else "")
        for role, stats, ends in pair
    ]
    ends = throughput.ratio_ci95
    ratio = f"{throughput.ratio:.2f} times" + (f", {ends[0]:.2f} to {ends[1]:.2f}" if ends else "")
    streams = f"{throughput.streams} {plural('stream', throughput.streams)}"
    yield "throughput", f"measured with {streams}: {', '.join(figures)}; {ratio}"
    yield "streams", f"{throughput.mode}; latency was measured alone, one inference at a time"


def energy_words(energies: Energies) -> str:
    """Returns what an image costs either network, and by which meter."""
    engine, reference = energies.engine, energies.reference
    return (
        f"{engine.joules_per_image:.3g} J per image above idle, the reference "
        f"{reference.joules_per_image:.3g} J; {engine.meter}: {', '.join(engine.scope)}"
    )


def loadgen_value(result: LoadGenResult) -> str:
    """Returns LoadGen's figure with its unit."""
    return "unavailable" if result.value is None else f"{result.value:.4g} {result.unit}"


def loadgen_facts(result: LoadGenResult) -> Facts:
    """Yields LoadGen's result of its run, in its own words."""
    yield "scenario", result.scenario
    yield "result", ": ".join((result.result, *result.reasons))
    yield result.metric, loadgen_value(result)
    yield "queries", f"{count(result.queries)}, {result.seconds:g} s requested"
    if result.logs is not None:
        yield "its logs", result.logs


def regression_facts(regression: Regression) -> Facts:
    """Yields how the engine compares with that of the baseline's run."""
    accuracy, latency = regression.accuracy, regression.latency
    change = top1_change(accuracy.drop_pp, accuracy.ci95_pp)
    yield "baseline", regression.baseline
    yield (
        "flips since",
        f"{count(accuracy.lost)} newly wrong, {count(accuracy.gained)} newly correct",
    )
    yield "top-1 since", f"{change.words}, p value {probability(accuracy.p_value)}"
    yield "latency since", _time_since(latency, regression.latency_reason)
    if regression.throughput is not None or regression.throughput_reason is not None:
        words = _time_since(regression.throughput, regression.throughput_reason)
        yield "batch time with streams since", words


def _time_since(change: LatencyChange | None, reason: str | None) -> str:
    if change is None:
        return f"not compared: {reason}"
    ends = f", 95 % interval {change.ci95[0]:.3f} to {change.ci95[1]:.3f}" if change.ci95 else ""
    return (
        f"{change.ratio:.3f} times{ends}, each relative to the reference of its own run; "
        f"{change.raw_ratio:.3f} times as it was timed"
    )


def environment_facts(verdict: Verdict) -> Facts:
    """Yields what is known of the machine."""
    return fact_pairs(to_json(verdict.environment.machine))


def stability_facts(stability: Stability) -> Facts:
    """Yields what disturbed the measurement, and what the machine does not report."""
    for finding in stability.findings:
        yield finding.severity.value, finding.sentence
    yield (
        "monitored for",
        f"{stability.seconds:.0f} s, {count(len(stability.samples))} {plural('sample', len(stability.samples))}",
    )
    if stability.unavailable:
        yield "unavailable", ", ".join(stability.unavailable)


def disturbances(stability: Stability | None) -> list[str]:
    """Returns what makes the figures of time and energy another machine's."""
    findings = () if stability is None else stability.findings
    return [one.sentence for one in findings if one.severity is Severity.UNSTABLE]


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


def float_reasons(layers: Iterable[LayerPrecision], most: int = 3) -> list[tuple[str, str]]:
    """Returns each reason for another precision with the layers that have it."""
    layers_of: dict[str, list[str]] = {}
    for layer in layers:
        if layer.reason:
            layers_of.setdefault(layer.reason, []).append(layer.name)
    return [
        (
            ", ".join(names[:most])
            + (f" and {rest} more" if (rest := len(names) - most) > 0 else ""),
            reason,
        )
        for reason, names in layers_of.items()
    ]
