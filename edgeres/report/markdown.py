"""The verdict as Markdown for a pull request: the outcome, one table, and what it rests on.

Names come from files that anybody may have named, so every character that Markdown or HTML
reads as a sign is written as a reference to itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator

from edgeres.core.verdict import (
    Flip,
    FlipKind,
    PairedAccuracy,
    PairedLatency,
    Provenance,
    Verdict,
)
from edgeres.report.checks import check_words, reasons
from edgeres.report.words import (
    class_name,
    count,
    milliseconds,
    percent,
    points,
    probability,
)

FLIPS_SHOWN = 10

_SIGNS = re.compile(r"[\\`*_{}\[\]<>()#+!|~&@$]|[-.](?=\s)|://")
_WORSE_FIRST = (FlipKind.LOST, FlipKind.GAINED, FlipKind.OTHER)


def render_markdown(comparison: Verdict, *, engine: str, reference: str) -> str:
    """Returns the text.

    Args:
        comparison: the verdict.
        engine: name of the engine and where it ran.
        reference: name of the reference and where it ran.
    """
    mark = "✅ PASS" if comparison.passed else "❌ FAIL"
    parts = (
        f"### {mark}: {_plain(engine)}",
        "\n".join(f"- {_plain(sentence)}" for sentence in reasons(comparison)),
        _table(("", "reference", "engine", "difference"), _rows(comparison)),
        *_checks(comparison),
        *(f"> **Warning:** {_plain(sentence)}" for sentence in comparison.warnings),
        *_flips(comparison),
        *_provenance(comparison.provenance, reference),
    )
    return "\n\n".join(parts) + "\n"


def _rows(comparison: Verdict) -> Iterator[tuple[str, ...]]:
    yield from _accuracy_rows(comparison.accuracy)
    if comparison.latency is None:
        yield "latency", "not measured", "not measured", ""
    else:
        yield from _latency_rows(comparison.latency)
    if (told := comparison.loadgen) is not None:
        value = "not told" if told.value is None else f"{told.value:.4g} {told.unit}"
        yield f"LoadGen, {told.scenario}", "", value, f"{told.result}, {told.metric}"
    if comparison.regression is not None:
        since = comparison.regression.accuracy
        low, high = (points(end, unit=False) for end in since.ci95_pp)
        drop = f"drop {points(since.drop_pp)}, 95 % interval {low} to {high}"
        yield f"since {_plain(comparison.regression.baseline)}", "", "", drop


def _accuracy_rows(accuracy: PairedAccuracy) -> Iterator[tuple[str, ...]]:
    both = accuracy.reference, accuracy.engine
    low, high = (points(end, unit=False) for end in accuracy.ci95_pp)
    drop = f"drop {points(accuracy.drop_pp)}, 95 % interval {low} to {high}"
    yield "top-1", *(percent(one.top1) for one in both), drop
    if both[0].top5 is not None and both[1].top5 is not None:
        yield "top-5", *(percent(one.top5 or 0.0) for one in both), ""
    changed = f"{accuracy.lost} lost, {accuracy.gained} gained"
    sure = f"p {probability(accuracy.p_value)}"
    yield (
        f"right of {count(both[0].samples)}",
        *(count(b.correct) for b in both),
        f"{changed}, {sure}",
    )


def _latency_rows(latency: PairedLatency) -> Iterator[tuple[str, ...]]:
    both = latency.reference, latency.engine
    ends = latency.speedup_ci95
    interval = f", 95 % interval {ends[0]:.2f} to {ends[1]:.2f}" if ends else ""
    times = f"{latency.speedup:.2f} times as fast{interval}"
    yield "latency p50, ms", *(milliseconds(one.p50_ms) for one in both), times
    yield "latency p99, ms", *(milliseconds(one.p99_ms) for one in both), ""
    yield "images/s", *(f"{latency.images_per_s(one):.1f}" for one in both), ""


def _checks(comparison: Verdict) -> Iterator[str]:
    if comparison.checks:
        told = (check_words(check) for check in comparison.checks)
        rows = ((c.title, c.limit, c.value, "pass" if c.passed else "**FAIL**") for c in told)
        yield _table(("check", "limit", "value", "outcome"), rows)


def _flips(comparison: Verdict) -> Iterator[str]:
    flips = sorted(comparison.accuracy.flips, key=_rank)
    if not flips:
        return
    shown = flips[:FLIPS_SHOWN]
    which = f", the {len(shown)} worst" if len(flips) > len(shown) else ""
    rows = (_flip_row(flip, comparison.classes) for flip in shown)
    table = _table(("", "image", "class", "reference", "engine"), rows)
    yield _folded(f"{count(len(flips))} labels changed{which}", table)


def _rank(flip: Flip) -> tuple[int, float]:
    return _WORSE_FIRST.index(flip.kind), -flip.engine.probability


def _flip_row(flip: Flip, classes: tuple[str, ...]) -> tuple[str, ...]:
    answers = (
        f"{_plain(class_name(given.label, classes))}, {percent(given.probability, 0)}"
        for given in (flip.reference, flip.engine)
    )
    return flip.kind.value, _plain(flip.name), _plain(class_name(flip.label, classes)), *answers


def _provenance(provenance: Provenance, reference: str) -> Iterator[str]:
    told = [
        f"reference {_plain(reference)}",
        f"engine sha256 {provenance.engine.sha256}",
        f"reference sha256 {provenance.reference.sha256}",
        f"images {_plain(provenance.data.path)}, fingerprint {provenance.data.fingerprint}",
    ]
    listed = "\n".join(f"- {line}" for line in told)
    yield _folded("Provenance", "\n\n".join((listed, *_command(provenance.command))))


def _command(words: tuple[str, ...]) -> Iterator[str]:
    if words:
        line = shlex.join(words)
        # A fence longer than any row of backticks inside holds whatever a name contains.
        fence = "`" * max([3, *(len(row) + 1 for row in re.findall("`+", line))])
        yield f"{fence}\n{line}\n{fence}"


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (header, ("---",) * len(header), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plain(words: str) -> str:
    """Returns words on one line in which nothing is a sign of Markdown or HTML."""
    return _SIGNS.sub(_referred, " ".join(words.split()))


def _referred(found: re.Match[str]) -> str:
    return "".join(f"&#{ord(sign)};" for sign in found[0])
