"""The verdict as text and tables for a terminal, 80 columns wide, with colour or without.

Accuracy is rendered in percent and percentage points (pp). Every word that colour stresses is
also said, so that a pipe and NO_COLOR lose nothing. Knows no runner and no file.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeres.core.bench_requests import Decision
from edgeres.core.verdict import (
    Accuracy,
    Check,
    ClassDifference,
    Energies,
    LatencyStats,
    LoadGenResult,
    LogitError,
    PairedAccuracy,
    PairedLatency,
    Verdict,
)
from edgeres.machine import Severity, Stability
from edgeres.report.checks import check_words
from edgeres.report.words import milliseconds, points, probability

SIGNIFICANCE = 0.05
"""Two-sided level below which a p value is called significant; it matches the 95 % interval."""

CLASSES_SHOWN = 5
"""Classes that are named before the rest is counted."""

DRIFT_SURE, DRIFT_NOTED = 0.01, 0.02
"""p value up to which, and change from which, a trend is told: one in a hundred quiet runs, and
what trtexec's 2.5 % of variation would hide."""

_PASS, _FAIL, _WARNING, _LABEL = "bold green", "bold red", "yellow", "bold"


def render_verdict(comparison: Verdict, *, engine: str, reference: str) -> Group:
    """Returns what a rich Console prints: the verdict, then what it rests on.

    Args:
        comparison: the verdict.
        engine: name of the engine and where it ran.
        reference: name of the reference and where it ran.
    """
    return Group(
        _verdict_line(comparison),
        Text(),
        _facts({"reference": reference, "engine": engine}),
        Text(),
        _accuracy_table(comparison.accuracy),
        _facts(dict(_accuracy_facts(comparison))),
        *_latency_part(comparison.latency),
        *_loadgen_part(comparison.loadgen),
        *_energy_part(comparison.energy),
        *_checks_part(comparison.checks),
        *_warnings_part(comparison.warnings),
        *_stability_part(comparison.stability),
    )


def _verdict_line(comparison: Verdict) -> Text:
    passed = comparison.passed
    told = [check for check in comparison.checks if check.passed == passed]
    reason = "; ".join(check.reason or check.name for check in told)
    return Text.assemble(
        ("PASS" if passed else "FAIL", _PASS if passed else _FAIL),
        f"  {reason or 'no limit was set, so none could be missed'}.",
    )


def _accuracy_table(accuracy: PairedAccuracy) -> Table:
    table = columns("accuracy", "top-1", "top-5", "right", "images")
    for name, found in (("reference", accuracy.reference), ("engine", accuracy.engine)):
        table.add_row(name, *_accuracy_cells(found))
    return table


def _accuracy_cells(accuracy: Accuracy) -> tuple[str, str, str, str]:
    top5 = "-" if accuracy.top5 is None else _percent(accuracy.top5)
    return _percent(accuracy.top1), top5, str(accuracy.correct), str(accuracy.samples)


def _percent(fraction: float) -> str:
    """Returns a fraction in percent, with a plain space that a search in a log finds."""
    return f"{100 * fraction:.2f} %"


def _accuracy_facts(comparison: Verdict) -> Iterator[tuple[str, str]]:
    accuracy = comparison.accuracy
    drop, low, high = (points(value, unit=False) for value in (accuracy.drop_pp, *accuracy.ci95_pp))
    better = " (the engine is right more often)" if accuracy.drop_pp < 0 else ""
    yield "top-1 drop", f"{drop} pp{better}"
    yield "95 % interval", f"{low} to {high} pp{_unsettled(comparison)}"
    yield "flips", f"{accuracy.lost} lost, {accuracy.gained} gained"
    yield "p value", f"{probability(accuracy.p_value)}: {_significance(accuracy)}"
    yield from _closeness_facts(accuracy)
    if told := [found for found in accuracy.by_class if found.q_value < SIGNIFICANCE]:
        yield "classes", _classes(told, comparison.classes)


def _closeness_facts(accuracy: PairedAccuracy) -> Iterator[tuple[str, str]]:
    if accuracy.agreement is not None:
        yield "agreement", f"{_percent(accuracy.agreement)} of the images get the same label"
    if accuracy.logits is not None:
        yield "logits", _logits(accuracy.logits)
    first, second = accuracy.reference_confidence, accuracy.engine_confidence
    if first is not None and second is not None:
        yield "confidence", f"ECE {_percent(second.ece)}, the reference's {_percent(first.ece)}"


def _logits(error: LogitError) -> str:
    noise = "no error" if error.sqnr_db is None else f"SQNR {error.sqnr_db:.1f} dB"
    return f"{noise}, cosine {error.cosine:.5f}, {error.lowest_cosine:.3f} on the worst image"


def _classes(found: list[ClassDifference], names: tuple[str, ...]) -> str:
    """Names the classes that differ, the surest first."""
    shown = "; ".join(
        f"{names[one.label] if names else one.label} ({one.lost} lost, {one.gained} gained of "
        f"{one.samples})"
        for one in found[:CLASSES_SHOWN]
    )
    more = f"; {len(found) - CLASSES_SHOWN} more" if len(found) > CLASSES_SHOWN else ""
    return f"significantly different, corrected for their number: {shown}{more}"


def _unsettled(comparison: Verdict) -> str:
    """Says where a limit that the measured drop was held against lies within the interval."""
    low, high = comparison.accuracy.ci95_pp
    limits = [check.limit for check in comparison.checks if check.rule == Decision.POINT.value]
    if not any(low <= limit < high for limit in limits):
        return ""
    return f", with the limit of {limits[0]:g} pp inside: more images would settle it"


def _significance(accuracy: PairedAccuracy) -> str:
    if accuracy.lost == accuracy.gained:
        return "no difference"
    kind = "drop" if accuracy.lost > accuracy.gained else "gain"
    if accuracy.p_value < SIGNIFICANCE:
        return f"a significant {kind} (exact McNemar test)"
    return f"not significant, chance alone can make such a {kind} (exact McNemar test)"


def _latency_part(latency: PairedLatency | None) -> tuple[RenderableType, ...]:
    if latency is None:
        missing = "not measured: the engine was not run on its target"
        return Text(), _facts({"latency": missing})
    table = columns("latency in ms", "p50", "p90", "p95", "p99", "mean", "images/s", "samples")
    for name, stats in (("reference", latency.reference), ("engine", latency.engine)):
        table.add_row(name, *_latency_cells(stats, latency.images_per_s(stats)))
    return Text(), table, _facts(dict(_latency_facts(latency)))


def _latency_facts(latency: PairedLatency) -> Iterator[tuple[str, str]]:
    ends = latency.speedup_ci95
    sure = "" if ends is None else f", 95 % interval {ends[0]:.2f} to {ends[1]:.2f}"
    yield "speed-up", f"{latency.speedup:.2f} times at the median{sure}"
    pair = {"engine": latency.engine, "reference": latency.reference}
    for fact, tell in (("p50", _p50), ("drift", _drift), ("outliers", _outliers)):
        if told := [f"{name} {said}" for name, stats in pair.items() if (said := tell(stats))]:
            yield fact, "; ".join(told)
    for tail in [tail for tail in latency.engine.tails if not tail.enough][:1]:
        yield (
            "samples",
            f"{tail.had}, too few for p{tail.percentile}, which needs {tail.needed}: take "
            f"--iterations {latency.engine.tails[-1].needed}",
        )
    yield "timed", latency.mode


def _p50(stats: LatencyStats) -> str:
    ends = stats.intervals and stats.intervals.p50_ms
    return f"{milliseconds(ends[0])} to {milliseconds(ends[1])} ms" if ends else ""


def _drift(stats: LatencyStats) -> str:
    drift = stats.drift
    if drift is None or drift.p_value > DRIFT_SURE or abs(drift.change) < DRIFT_NOTED:
        return ""
    way = "slower" if drift.change > 0 else "faster"
    return f"became {abs(drift.change):.1%} {way} in the course of it (p {drift.p_value:.1g})"


def _outliers(stats: LatencyStats) -> str:
    found = stats.outliers
    if found is None or not found.count:
        return ""
    limit, largest = milliseconds(found.limit_ms), milliseconds(found.largest_ms)
    return f"{found.count} above {limit} ms, up to {largest}"


def _latency_cells(stats: LatencyStats, images_per_s: float) -> tuple[str, ...]:
    times = (stats.p50_ms, stats.p90_ms, stats.p95_ms, stats.p99_ms, stats.mean_ms)
    return *map(milliseconds, times), f"{images_per_s:.1f}", str(len(stats.samples_ms))


def _loadgen_part(found: LoadGenResult | None) -> tuple[RenderableType, ...]:
    if found is None:
        return ()
    value = "not told" if found.value is None else f"{found.value:.4g} {found.unit}"
    told = f"{found.result}, {found.scenario}: {found.metric}, {value}; {found.queries} queries"
    return (_facts({"LoadGen": told}),)


def _energy_part(energies: Energies | None) -> tuple[RenderableType, ...]:
    if energies is None:
        return ()
    engine, reference = energies.engine, energies.reference
    return (
        _facts(
            {
                "energy": f"{engine.joules_per_image:.3g} J an image above idling, the reference "
                f"{reference.joules_per_image:.3g} J; {engine.meter}: {', '.join(engine.scope)}"
            }
        ),
    )


def _checks_part(checks: tuple[Check, ...]) -> tuple[RenderableType, ...]:
    if not checks:
        return ()
    table = columns("check", "limit", "value", "verdict")
    for check in checks:
        told = check_words(check)
        verdict = Text("pass", _PASS) if check.passed else Text("FAIL", _FAIL)
        table.add_row(Text(check.name), told.limit, told.value, verdict)
    return Text(), table


def _warnings_part(warnings: tuple[str, ...]) -> Iterator[Text]:
    for sentence in warnings:
        yield Text()
        yield Text.assemble(("Warning: ", _WARNING), sentence)


def _stability_part(stability: Stability | None) -> Iterator[Text]:
    if stability is None:
        return
    for finding in stability.findings:
        unstable = finding.severity is Severity.UNSTABLE
        label, style = ("Unstable: ", _FAIL) if unstable else ("Warning: ", _WARNING)
        yield Text()
        yield Text.assemble((label, style), finding.sentence)


def columns(first: str, *others: str) -> Table:
    """Returns an empty table: a column of names, then columns of numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=_LABEL)
    table.add_column(first, min_width=13)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _facts(facts: dict[str, str]) -> Table:
    """Returns names and sentences side by side; a long sentence stays in its column."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=13, no_wrap=True)
    grid.add_column()
    for name, sentence in facts.items():
        grid.add_row(name, Text(sentence))
    return grid
