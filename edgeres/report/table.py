"""The verdict as text and tables for a terminal, 80 columns wide, with colour or without.

Whatever colour stresses is also in words, so that a pipe and NO_COLOR lose nothing. Knows no
runner and no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeres.core.verdict import MeasuredThroughput, Outcome, PairedLatency, ProfileRow, Verdict
from edgeres.machine import Severity
from edgeres.plurals import counted
from edgeres.report.facts import (
    accuracy_facts,
    energy_words,
    latency_facts,
    loadgen_value,
    throughput_facts,
)
from edgeres.report.outcomes import CheckWords, check_words, next_steps, reasons
from edgeres.report.tables import fact_grid, plain, plain_table, ruled_table
from edgeres.report.words import as_sentence, milliseconds, percent

NAME_WIDTH = 13
"""Columns of the names at the left, so that tables and sentences line up below each other."""

STYLES: Mapping[Outcome, str] = {
    Outcome.PASS: "bold green",
    Outcome.FAIL: "bold red",
    Outcome.INCONCLUSIVE: "bold yellow",
    Outcome.MEASURED: "bold",
}
"""Colour of each outcome: green is only what kept a limit."""

_UNSTABLE, _WARNING = "bold red", "yellow"


def render_verdict(verdict: Verdict) -> Group:
    """Returns what a rich Console prints: the verdict, then what it rests on."""
    names = verdict.environment
    accuracy = _numbers("accuracy", "top-1", "top-5", "correct", "images")
    for role, one in (
        ("reference", verdict.accuracy.reference),
        ("engine", verdict.accuracy.engine),
    ):
        top5 = "-" if one.top5 is None else percent(one.top5)
        accuracy.add_row(
            role, plain(percent(one.top1)), plain(top5), str(one.correct), str(one.samples)
        )
    parts: list[RenderableType] = [
        Text.assemble(
            (verdict.outcome, STYLES[verdict.outcome]), f"  {'; '.join(reasons(verdict))}."
        ),
        *(_sentences(("to decide", as_sentence(step))) for step in next_steps(verdict)),
        Text(),
        _sentences(("reference", names.reference_name), ("engine", names.engine_name)),
        Text(),
        accuracy,
        _sentences(*accuracy_facts(verdict)),
    ]
    if verdict.latency is None:
        missing = "not measured: the engine was not run on its target"
        parts += [Text(), _sentences(("latency", missing))]
    else:
        parts += [Text(), *_latency_part(verdict.latency, verdict.measured_throughput)]
    if (run := verdict.loadgen) is not None:
        scenario = f"{run.result}, {run.scenario}: {run.metric}, {loadgen_value(run)}"
        parts.append(_sentences(("LoadGen", f"{scenario}; {counted(run.queries, 'query')}")))
    if verdict.estimate is not None:
        parts.append(_sentences(*verdict.estimate.facts))
    if verdict.profile:
        parts += [Text(), _profile(verdict.profile)]
    if verdict.energy is not None:
        parts.append(_sentences(("energy", energy_words(verdict.energy))))
    if verdict.checks:
        checks = _numbers("check", "limit", "value", "verdict")
        for words in map(check_words, verdict.checks):
            checks.add_row(Text(words.title), words.limit, words.value, _mark(words))
        parts += [Text(), checks]
    # What weakens the verdict stands last, where a terminal stops scrolling.
    remarks = [("Warning: ", _WARNING, sentence) for sentence in verdict.warnings]
    for finding in () if verdict.stability is None else verdict.stability.findings:
        unstable = finding.severity is Severity.UNSTABLE
        label, style = ("Unstable: ", _UNSTABLE) if unstable else ("Warning: ", _WARNING)
        remarks.append((label, style, finding.sentence))
    for label, style, sentence in remarks:
        parts += [Text(), Text.assemble((label, style), sentence)]
    return Group(*parts)


def _mark(words: CheckWords) -> Text:
    """Returns the outcome of one check; a sound measurement keeps no limit and has no colour."""
    if words.outcome is not Outcome.PASS:
        return Text(words.outcome, STYLES[words.outcome])
    return Text("pass", STYLES[Outcome.PASS] if words.is_limit else "")


def _latency_part(
    latency: PairedLatency, streamed: MeasuredThroughput | None
) -> Iterator[RenderableType]:
    table = _numbers("latency in ms", "p50", "p90", "p95", "p99", "mean", "images/s", "samples")
    intervals = []
    for role, stats, overlapped in (
        ("reference", latency.reference, streamed and streamed.reference),
        ("engine", latency.engine, streamed and streamed.engine),
    ):
        times = (stats.p50_ms, stats.p90_ms, stats.p95_ms, stats.p99_ms, stats.mean_ms)
        throughput = f"{latency.images_per_s(overlapped or stats):.1f}"
        table.add_row(role, *map(milliseconds, times), throughput, str(len(stats.samples_ms)))
        if stats.ci95 is not None and (ends := stats.ci95.p50_ms) is not None:
            intervals.append(f"{role} {milliseconds(ends[0])} to {milliseconds(ends[1])} ms")
    yield table
    # The interval of p50 stands in no cell of a table of 80 columns, so it follows the speed-up.
    speedup, *others = latency_facts(latency, brief=True)
    p50 = [("p50", "; ".join(intervals))] if intervals else []
    yield _sentences(speedup, *p50, *others, ("timed", latency.mode))
    if streamed is not None:
        yield _sentences(*throughput_facts(streamed))


def _profile(rows: tuple[ProfileRow, ...]) -> Table:
    """Returns the time by block, with the layers of those that are hardly faster."""
    table = plain_table("where the time goes", numbers=("reference", "engine", "ratio"))
    table.add_column("why", overflow="fold")
    slow = {row.block for row in rows if row.layer is None and row.why}
    for row in rows:
        if row.layer is not None and row.block not in slow:
            continue
        name = row.block if row.layer is None else f"  {row.layer}"
        ratio = f"{row.reference_ms / row.engine_ms:.2f}" if row.engine_ms else "-"
        times = (plain(milliseconds(each)) for each in (row.reference_ms, row.engine_ms))
        table.add_row(Text(name), *times, ratio, Text(row.why))
    return table


def _sentences(*facts: tuple[str, str]) -> Table:
    return fact_grid(facts, name_width=NAME_WIDTH)


def _numbers(first: str, *others: str) -> Table:
    return ruled_table(first, *others, name_width=NAME_WIDTH)
