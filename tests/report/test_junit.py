"""The checks as JUnit XML: what every reader of the format asks for, and nothing that breaks it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from sample_verdict import BARE, FAILED, LATENCY, PASSED, SHAKEN, VERDICT, named
from verdict_parts import PROVENANCE

from edgeres.core.verdict import Verdict
from edgeres.report import render_junit

REQUIRED: Mapping[str, frozenset[str]] = {
    "testsuites": frozenset(),
    "testsuite": frozenset(
        ["name", "package", "id", "hostname", "tests", "failures", "errors", "time", "timestamp"]
    ),
    "properties": frozenset(),
    "property": frozenset({"name", "value"}),
    "testcase": frozenset({"name", "classname", "time"}),
    "failure": frozenset({"message", "type"}),
    "error": frozenset({"message", "type"}),
    "system-out": frozenset(),
    "system-err": frozenset(),
}
"""Attributes that an element must have, and the only ones written. Source: windyroad's JUnit.xsd."""

SUITE_ORDER = "properties (testcase )*system-out system-err "
"""Children of a suite. Source: the same."""


def rendered(comparison: Verdict, engine: str = "engine") -> ElementTree.Element:
    """Returns the tree of the XML."""
    return ElementTree.fromstring(render_junit(named(comparison, engine)).encode())


def broken_rules(root: ElementTree.Element) -> list[str]:
    """Returns a sentence for each rule of the schema that a tree breaks."""
    broken = [
        f"{one.tag} has {sorted(one.attrib)}"
        for one in root.iter()
        if one.tag not in REQUIRED or set(one.attrib) != REQUIRED[one.tag]
    ]
    for suite in root.iter("testsuite"):
        order = "".join(f"{child.tag} " for child in suite)
        if not re.fullmatch(SUITE_ORDER, order):
            broken.append(f"order {order}")
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp", "")):
            broken.append(f"timestamp {suite.get('timestamp')}")
    return broken


def test_the_schema_is_kept() -> None:
    """Elements, attributes, their order and the form of the time."""
    for verdict in (VERDICT, FAILED, PASSED, SHAKEN, BARE):
        assert broken_rules(rendered(verdict)) == []


def test_a_broken_rule_would_be_found() -> None:
    """An attribute too few, a child out of place, a time with its zone."""
    root = rendered(VERDICT)
    (suite,) = root
    suite.append(ElementTree.Element("testcase", name="a"))
    suite.set("timestamp", "2026-01-31T12:00:00+00:00")
    assert [rule.split()[0] for rule in broken_rules(root)] == ["testcase", "order", "timestamp"]


def test_each_check_is_a_case_and_failures_carry_the_sentence() -> None:
    """Counts agree with the cases."""
    (suite,) = rendered(FAILED)
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["accuracy_drop", "speedup"]
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["2", "1", "0"]
    failure = cases[0].find("failure")
    assert failure is not None
    assert failure.get("message", "").startswith("Accuracy drop 0.231 pp, at least 0.12 pp")
    assert (failure.text or "").endswith("limit: bound below 0.1 pp\nvalue: 0.91 pp")
    assert list(cases[1]) == []


def test_what_is_undecided_is_an_error() -> None:
    """No CI shows it green, and none calls it a failure; the number of images is a line of its own."""
    (suite,) = rendered(VERDICT)
    assert [suite.get(name) for name in ("tests", "failures", "errors")] == ["2", "0", "1"]
    error = suite.findall("testcase")[0].find("error")
    assert error is not None
    assert error.get("message", "").startswith("1300 images cannot decide")
    assert (error.text or "").splitlines()[-1] == (
        "to decide: 8,500 more images, about 9,800 in all, would show that the drop is below the "
        "limit"
    )


def test_warnings_and_figures_are_kept() -> None:
    """Warnings are the suite's output; networks, outcome and figures are its properties."""
    (suite,) = rendered(VERDICT)
    assert suite.findtext("system-out") == VERDICT.warnings[0]
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert properties == {
        "engine": "engine",
        "reference": "reference",
        "outcome": "INCONCLUSIVE",
        "top1": f"{1051 / 1300:.6f}",
        "top1_drop_pp": "0.2308",
        "engine_p50_ms": f"{LATENCY.engine.p50_ms:.6f}",
        "engine_p99_ms": f"{LATENCY.engine.p99_ms:.6f}",
        "reference_p50_ms": f"{LATENCY.reference.p50_ms:.6f}",
        "speedup": f"{LATENCY.reference.p50_ms / LATENCY.engine.p50_ms:.4f}",
        "machine": "stable",
    }


def test_an_unstable_machine_is_marked() -> None:
    """As a property and with its sentences; the suite's time is that of the measurement."""
    (suite,) = rendered(SHAKEN)
    properties = {one.get("name"): one.get("value") for one in suite.iter("property")}
    assert properties["machine"] == "unstable"
    assert suite.findtext("system-err") == "Unstable: The clocks fell."
    assert suite.get("time") == "12.300"
    (calm,) = rendered(VERDICT)
    assert not calm.findtext("system-err")


@pytest.mark.parametrize("seconds", [0.0, 0.00004, 12.3, 86400.5])
def test_times_are_those_of_the_measurement(seconds: float) -> None:
    """The suite's in seconds, as a decimal that the schema takes; a check takes none."""
    assert SHAKEN.stability is not None
    first, *_ = SHAKEN.stability.samples
    samples = first, replace(first, at_s=first.at_s + seconds)
    stability = replace(SHAKEN.stability, samples=samples)
    (suite,) = rendered(replace(FAILED, stability=stability))
    written = suite.get("time", "")
    assert re.fullmatch(r"\d+(\.\d+)?", written)
    assert float(written) == pytest.approx(seconds, abs=0.0005)
    assert {case.get("time") for case in suite.iter("testcase")} == {"0"}
    (unmeasured,) = rendered(replace(FAILED, stability=None))
    assert unmeasured.get("time") == "0"


def test_without_limits_there_is_no_case() -> None:
    """The suite is empty, and nothing has failed."""
    (suite,) = rendered(BARE)
    assert (suite.get("tests"), suite.get("failures"), suite.find("testcase")) == ("0", "0", None)


@pytest.mark.parametrize("name", ["<a>&\"'", "bell \x07 null \x00", "surrogate \udcff", "é 漢 🙂"])
def test_any_name_gives_xml(name: str) -> None:
    """Signs are escaped, and what XML cannot hold is replaced."""
    hostile = replace(VERDICT, warnings=(name,))
    (suite,) = rendered(hostile, engine=name)
    shown = re.sub("[\x00\x07\udcff]", "\N{REPLACEMENT CHARACTER}", name)
    assert suite.findtext("system-out") == shown
    assert {case.get("classname") for case in suite.iter("testcase")} == {shown}


def test_the_time_is_in_utc() -> None:
    """Whatever zone it was recorded in."""
    later = replace(VERDICT, provenance=replace(PROVENANCE, started="2026-01-31T14:30:00+02:00"))
    (suite,) = rendered(later)
    assert suite.get("timestamp") == "2026-01-31T12:30:00"
