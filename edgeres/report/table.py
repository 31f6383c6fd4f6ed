"""The verdict as text and tables for a terminal, 80 columns wide, with colour or without.

Accuracy is rendered in percent and percentage points (pp). Every word that colour stresses is
also said, so that a pipe and NO_COLOR lose nothing. Knows no runner and no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeres.compare import told_apart
from edgeres.results import (
    Accuracy,
    Check,
    Comparison,
    LatencyStats,
    PairedAccuracy,
    PairedLatency,
)

SIGNIFICANCE = 0.05
"""Two-sided level below which a p value is called significant; it matches the 95 % interval."""

_UNITS: Mapping[str, tuple[str, str]] = {
    "accuracy_drop": ("at most ", " pp"),
    "speedup": ("at least ", " x"),
}
"""How the limit of a check binds, and the unit of its value."""

_PASS, _FAIL, _WARNING, _LABEL = "bold green", "bold red", "yellow", "bold"


def render_verdict(comparison: Comparison, *, engine: str, reference: str) -> Group:
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
        *_checks_part(comparison.checks),
        *_warnings_part(comparison.warnings),
    )


def _verdict_line(comparison: Comparison) -> Text:
    passed = comparison.passed
    told = [check for check in comparison.checks if check.passed == passed]
    reason = "; ".join(check.reason or check.name for check in told)
    return Text.assemble(
        ("PASS" if passed else "FAIL", _PASS if passed else _FAIL),
        f"  {reason or 'no limit was set, so none could be missed'}.",
    )


def _accuracy_table(accuracy: PairedAccuracy) -> Table:
    table = _table("accuracy", "top-1", "top-5", "right", "images")
    for name, found in (("reference", accuracy.reference), ("engine", accuracy.engine)):
        table.add_row(name, *_accuracy_cells(found))
    return table


def _accuracy_cells(accuracy: Accuracy) -> tuple[str, str, str, str]:
    top5 = "-" if accuracy.top5 is None else _percent(accuracy.top5)
    return _percent(accuracy.top1), top5, str(accuracy.correct), str(accuracy.samples)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _accuracy_facts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    accuracy = comparison.accuracy
    low, high = accuracy.ci95_pp
    better = " (the engine is right more often)" if accuracy.drop_pp < 0 else ""
    yield "top-1 drop", f"{_pp(accuracy.drop_pp)} pp{better}"
    yield "95 % interval", f"{_pp(low)} to {_pp(high)} pp{_unsettled(comparison)}"
    yield "flips", f"{accuracy.lost} lost, {accuracy.gained} gained"
    yield "p value", f"{_p_value(accuracy.p_value)}: {_significance(accuracy)}"


def _pp(value: float) -> str:
    """Returns percentage points to two decimals, without a minus sign on a zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def _unsettled(comparison: Comparison) -> str:
    """Says where the interval has drops on both sides of the limit."""
    low, high = comparison.accuracy.ci95_pp
    limits = [check.limit for check in comparison.checks if check.name == "accuracy_drop"]
    if not any(low <= limit < high for limit in limits):
        return ""
    return f", with the limit of {limits[0]:g} pp inside: more images would settle it"


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.3g}"


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
    table = _table("latency in ms", "p50", "p90", "p95", "p99", "mean", "images/s", "samples")
    for name, stats in (("reference", latency.reference), ("engine", latency.engine)):
        table.add_row(name, *_latency_cells(stats, latency.images_per_s(stats)))
    facts = {"speed-up": f"{latency.speedup:.2f} times at the median", "timed": latency.mode}
    return Text(), table, _facts(facts)


def _latency_cells(stats: LatencyStats, images_per_s: float) -> tuple[str, ...]:
    times = (stats.p50_ms, stats.p90_ms, stats.p95_ms, stats.p99_ms, stats.mean_ms)
    rendered = (f"{value:.{2 if value >= 1 else 4}f}" for value in times)
    return *rendered, f"{images_per_s:.1f}", str(len(stats.samples_ms))


def _checks_part(checks: tuple[Check, ...]) -> tuple[RenderableType, ...]:
    if not checks:
        return ()
    table = _table("check", "limit", "value", "verdict")
    for check in checks:
        relation, unit = _UNITS.get(check.name, ("", ""))
        value = told_apart(check.value, check.limit) + unit
        verdict = Text("pass", _PASS) if check.passed else Text("FAIL", _FAIL)
        table.add_row(Text(check.name), f"{relation}{check.limit:g}{unit}", value, verdict)
    return Text(), table


def _warnings_part(warnings: tuple[str, ...]) -> Iterator[Text]:
    for sentence in warnings:
        yield Text()
        yield Text.assemble(("Warning: ", _WARNING), sentence)


def _table(first: str, *others: str) -> Table:
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
