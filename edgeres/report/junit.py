"""The verdict as JUnit XML, which every CI shows: each check is a test case.

Source: the schema of Apache Ant's JUnit task (windyroad's JUnit.xsd) and the looser one of
Jenkins' xunit plugin (junit-10.xsd); what is written here is valid by both.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from xml.etree import ElementTree

from edgeres.core.verdict import Verdict
from edgeres.report.facts import check_words

SUITE = "edgeres bench"

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold. Source: XML 1.0, production 2, Char."""


def render_junit(verdict: Verdict) -> str:
    """Returns the XML text; a failed check carries the sentence with its reason."""
    names, failed = verdict.environment, sum(not check.passed for check in verdict.checks)
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
        failures=str(failed),
        errors="0",
        # A check takes no time; a time that is left out breaks the schema.
        time="0",
        timestamp=f"{started.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}",
    )
    # The schema fixes the order of a suite's children: properties, cases, output, errors.
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("engine", names.engine_name), ("reference", names.reference_name)):
        ElementTree.SubElement(properties, "property", name=name, value=_clean(value))
    for check in verdict.checks:
        # A class name groups cases: those of one engine stand together in a CI's list.
        case = ElementTree.SubElement(
            suite, "testcase", name=check.name, classname=_clean(names.engine_name), time="0"
        )
        if not check.passed:
            words = check_words(check)
            message = _clean(words.sentence)
            failure = ElementTree.SubElement(case, "failure", type=check.name, message=message)
            failure.text = _clean(f"{words.sentence}\nlimit: {words.limit}\nvalue: {words.value}")
    ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(verdict.warnings))
    ElementTree.SubElement(suite, "system-err")
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _clean(words: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", words)
