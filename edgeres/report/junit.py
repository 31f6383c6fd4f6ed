"""The verdict as JUnit XML, which every CI shows: each check is a test case.

Source: the schema of Apache Ant's JUnit task (windyroad's JUnit.xsd) and the looser one of
Jenkins' xunit plugin (junit-10.xsd); what is written here is valid by both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timezone
from xml.etree import ElementTree

from edgeres.core.verdict import Outcome, Verdict
from edgeres.report.facts import disturbances
from edgeres.report.outcomes import check_words

SUITE = "edgeres bench"

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold. Source: XML 1.0, production 2, Char."""


def render_junit(verdict: Verdict) -> str:
    """Returns the XML text; a check that failed or is undecided carries the sentence with its reason.

    An undecided check is an `error`, JUnit's word for a test that came to no result.
    """
    names, counts = verdict.environment, Counter(check.outcome for check in verdict.checks)
    # Python 3.10 reads no Z for UTC, and the schema forbids a zone in what is written.
    started = datetime.fromisoformat(verdict.provenance.started.replace("Z", "+00:00"))
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=SUITE,
        package="edgeres",
        id="0",
        # The schema's word for a host without a name.
        hostname="localhost",
        tests=str(len(verdict.checks)),
        failures=str(counts[Outcome.FAIL]),
        errors=str(counts[Outcome.INCONCLUSIVE]),
        # Of the measurement; a check itself takes none, and the schema wants a time in each.
        time="0" if verdict.stability is None else f"{verdict.stability.seconds:.3f}",
        timestamp=f"{started.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}",
    )
    # The schema fixes the order of a suite's children: properties, cases, output, errors.
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in _properties(verdict):
        ElementTree.SubElement(properties, "property", name=name, value=_clean(value))
    for check in verdict.checks:
        # A class name groups cases: those of one engine stand together in a CI's list.
        case = ElementTree.SubElement(
            suite, "testcase", name=check.name, classname=_clean(names.engine_name), time="0"
        )
        if not check.passed:
            words = check_words(check)
            tag = "failure" if check.outcome is Outcome.FAIL else "error"
            message = _clean(words.sentence)
            problem = ElementTree.SubElement(case, tag, type=check.name, message=message)
            lines = [words.sentence, f"limit: {words.limit}", f"value: {words.value}"]
            if words.next_step:
                lines.append(f"to decide: {words.next_step}")
            problem.text = _clean("\n".join(lines))
    ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(verdict.warnings))
    unstable = [f"Unstable: {sentence}" for sentence in disturbances(verdict.stability)]
    ElementTree.SubElement(suite, "system-err").text = _clean("\n".join(unstable))
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _properties(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Yields names and figures that a CI keeps beside the checks and can plot over runs."""
    names, accuracy, latency = verdict.environment, verdict.accuracy, verdict.latency
    yield "engine", names.engine_name
    yield "reference", names.reference_name
    yield "outcome", verdict.outcome
    yield "top1", f"{accuracy.engine.top1:.6f}"
    yield "top1_drop_pp", f"{accuracy.drop_pp:.4f}"
    if latency is not None:
        yield "engine_p50_ms", f"{latency.engine.p50_ms:.6f}"
        yield "engine_p99_ms", f"{latency.engine.p99_ms:.6f}"
        yield "reference_p50_ms", f"{latency.reference.p50_ms:.6f}"
        yield "speedup", f"{latency.speedup:.4f}"
    if verdict.stability is not None:
        yield "machine", "stable" if verdict.stability.stable else "unstable"


def _clean(words: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", words)
