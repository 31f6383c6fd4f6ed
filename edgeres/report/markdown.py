"""The verdict as Markdown for a pull request: the outcome, one table, and what it rests on.

Names come from files that anybody may have named, so every character that Markdown or HTML
reads as a sign is written as a reference to itself.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping

from edgeres.core.verdict import Outcome, Verdict
from edgeres.plurals import plural
from edgeres.printable import printable
from edgeres.report.facts import (
    FLIP_NAMES,
    flip_counts,
    flips_by_kind,
    loadgen_value,
    speedup_words,
    top1_change,
)
from edgeres.report.outcomes import check_words, next_steps, reasons
from edgeres.report.words import as_sentence, class_name, count, milliseconds, percent, probability

FLIPS_SHOWN = 10

MARKS: Mapping[Outcome, str] = {
    Outcome.PASS: "✅",
    Outcome.FAIL: "❌",
    Outcome.INCONCLUSIVE: "⚠️",
    Outcome.MEASURED: "📏",
}
"""Sign before each outcome, since Markdown has no colour."""

# `-` and `.` are signs only where they begin a list; `://` makes a link of a bare address.
_SIGNS = re.compile(r"[\\`*_{}\[\]<>()#+!|~&@$]|[-.](?=\s)|://")


def render_markdown(verdict: Verdict) -> str:
    """Returns the text."""
    environment, provenance = verdict.environment, verdict.provenance
    parts = [
        f"### {MARKS[verdict.outcome]} {verdict.outcome}: {plain_markdown(environment.engine_name)}",
        "\n".join(
            f"- {plain_markdown(as_sentence(words))}"
            for words in (*reasons(verdict), *next_steps(verdict))
        ),
        _table(("", "reference", "engine", "difference"), _rows(verdict)),
    ]
    if verdict.checks:
        words = map(check_words, verdict.checks)
        rows = ((c.title, c.limit, c.value, _outcome(c.outcome)) for c in words)
        parts.append(_table(("check", "limit", "value", "outcome"), rows))
    parts += [f"> **Warning:** {plain_markdown(sentence)}" for sentence in verdict.warnings]
    if verdict.accuracy.flips:
        parts.append(_flips(verdict))
    sources = [
        f"- reference {plain_markdown(environment.reference_name)}",
        f"- engine sha256 {provenance.engine.sha256}",
        f"- reference sha256 {provenance.reference.sha256}",
        f"- images {plain_markdown(provenance.data.path)}, fingerprint {provenance.data.fingerprint}",
    ]
    folded = "\n".join(sources)
    if provenance.command:
        line = shlex.join(provenance.command)
        # A fence longer than any row of backticks inside holds whatever a name contains.
        fence = "`" * max([3, *(len(row) + 1 for row in re.findall("`+", line))])
        folded += f"\n\n{fence}\n{line}\n{fence}"
    parts.append(_folded("Provenance", folded))
    return "\n\n".join(parts) + "\n"


def _outcome(outcome: Outcome) -> str:
    return "pass" if outcome is Outcome.PASS else f"**{outcome}**"


def _rows(verdict: Verdict) -> Iterator[tuple[str, ...]]:
    """Yields what both networks have in one row each, with the difference."""
    accuracy, latency = verdict.accuracy, verdict.latency
    both = accuracy.reference, accuracy.engine
    change = top1_change(accuracy.drop_pp, accuracy.ci95_pp).words
    yield "top-1", *(percent(one.top1) for one in both), change
    if accuracy.reference.top5 is not None and accuracy.engine.top5 is not None:
        yield "top-5", percent(accuracy.reference.top5), percent(accuracy.engine.top5), ""
    flips = f"{flip_counts(accuracy)}, p {probability(accuracy.p_value)}"
    yield f"correct of {count(both[0].samples)}", *(count(one.correct) for one in both), flips
    if latency is None:
        yield "latency", "not measured", "not measured", ""
    else:
        times = latency.reference, latency.engine
        yield "latency p50, ms", *(milliseconds(t.p50_ms) for t in times), speedup_words(latency)
        yield "latency p99, ms", *(milliseconds(t.p99_ms) for t in times), ""
    if (throughput := verdict.throughput) is not None:
        run = throughput.measured
        figures = (throughput.reference_images_per_s, throughput.engine_images_per_s)
        name = "images/s" if run is None else f"images/s, {run.streams} at a time"
        ratio = "" if run is None else f"{run.ratio:.2f} times"
        yield name, *(f"{figure:.1f}" for figure in figures), ratio
    if (driven := verdict.loadgen) is not None:
        outcome = f"{driven.result}, {driven.metric}"
        yield f"LoadGen, {driven.scenario}", "", loadgen_value(driven), outcome
    if (since := verdict.regression) is not None:
        change = top1_change(since.accuracy.drop_pp, since.accuracy.ci95_pp).words
        yield f"since {plain_markdown(since.baseline)}", "", "", change


def _flips(verdict: Verdict) -> str:
    """Returns the changed labels, the worst first, folded below a line with their number."""
    flips = [flip for same in flips_by_kind(verdict.accuracy.flips).values() for flip in same]
    rows = []
    for flip in flips[:FLIPS_SHOWN]:
        answers = (
            f"{plain_markdown(class_name(given.label, verdict.classes))}, {percent(given.probability, 0)}"
            for given in (flip.reference, flip.engine)
        )
        label = plain_markdown(class_name(flip.label, verdict.classes))
        rows.append((FLIP_NAMES[flip.kind], plain_markdown(flip.name), label, *answers))
    which = f", the {len(rows)} worst" if len(flips) > len(rows) else ""
    table = _table(("", "image", "class", "reference", "engine"), rows)
    return _folded(f"{count(len(flips))} {plural('label', len(flips))} changed{which}", table)


def _folded(title: str, body: str) -> str:
    # Markdown inside of HTML is read as Markdown only behind an empty line.
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (header, ("---",) * len(header), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain_markdown(words: str) -> str:
    """Returns words on one line in which nothing is a sign of Markdown or HTML."""
    # A line break in a name would end the row of a table.
    return _SIGNS.sub(
        lambda match: "".join(f"&#{ord(sign)};" for sign in match[0]),
        printable(" ".join(words.split())),
    )
