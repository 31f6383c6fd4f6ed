"""The verdict as JUnit XML, which every CI shows: each check is a test case.

Source: the schema of Apache Ant's JUnit task (windyroad's JUnit.xsd) and the looser one of
Jenkins' xunit plugin (junit-10.xsd); what is written here is valid by both.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from xml.etree import ElementTree

from edgeres.core.verdict import Check, Verdict
from edgeres.report.checks import check_words

SUITE = "edgeres bench"

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may hold. Source: XML 1.0, production 2, Char."""


def render_junit(comparison: Verdict, *, engine: str, reference: str) -> str:
    """Returns the XML text; a failed check carries the sentence that says why.

    Args:
        comparison: the verdict.
        engine: name of the engine and where it ran.
        reference: name of the reference and where it ran.
    """
    suite = ElementTree.Element("testsuite", _attributes(comparison))
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("engine", engine), ("reference", reference)):
        ElementTree.SubElement(properties, "property", name=name, value=_clean(value))
    suite.extend(_case(check, engine) for check in comparison.checks)
    ElementTree.SubElement(suite, "system-out").text = _clean("\n".join(comparison.warnings))
    ElementTree.SubElement(suite, "system-err")
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _attributes(comparison: Verdict) -> dict[str, str]:
    failed = sum(not check.passed for check in comparison.checks)
    return {
        "name": SUITE,
        "package": "edgeres",
        "id": "0",
        # The schema's word for a host that is not told.
        "hostname": "localhost",
        "tests": str(len(comparison.checks)),
        "failures": str(failed),
        "errors": "0",
        "time": "0",
        "timestamp": _timestamp(comparison.provenance.started),
    }


def _timestamp(iso: str) -> str:
    """Returns the time in UTC without its zone, which the schema forbids."""
    moment = datetime.fromisoformat(iso.replace("Z", "+00:00"))
    return f"{moment.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%S}"


def _case(check: Check, engine: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", name=check.name, classname=_clean(engine), time="0")
    if not check.passed:
        told = check_words(check)
        failure = ElementTree.SubElement(
            case, "failure", type=check.name, message=_clean(told.sentence)
        )
        failure.text = _clean(f"{told.sentence}\nlimit: {told.limit}\nvalue: {told.value}")
    return case


def _clean(words: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", words)
