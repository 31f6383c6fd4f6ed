"""The verdict for a pull request: compact, and inert whatever a file is called."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest
from sample_verdict import (
    ACCURACY,
    BARE,
    CLASSES,
    FAILED,
    LOADGEN,
    PASSED,
    REGRESSION,
    VERDICT,
    flips,
    named,
)
from verdict_parts import PROVENANCE

from edgeres.core.verdict import Verdict
from edgeres.report import render_markdown
from edgeres.report.markdown import FLIPS_SHOWN

SIGNS = r"[\\`*_{}\[\]<>()#+!|~&@$]"


def rendered(comparison: Verdict) -> str:
    """Returns the text."""
    return render_markdown(named(comparison, "a.onnx on cpu", "b.onnx on cpu"))


def tables(text: str) -> list[list[list[str]]]:
    """Returns the cells of each table, read as a Markdown reader does: rows of `|`."""
    lines = text.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        for line in lines
    ]
    blocks: list[list[list[str]]] = [[]]
    for row in rows:
        if row is None:
            blocks.append([])
        else:
            blocks[-1].append(row)
    return [table for table in blocks if table]


def test_a_failure_comes_first() -> None:
    """The word and the engine, then the sentence of the check that failed."""
    lines = rendered(FAILED).splitlines()
    assert lines[0] == "### ❌ FAIL: a.onnx on cpu"
    assert lines[2].startswith("- Accuracy drop 0.231 pp, at least 0.12 pp")


def test_what_is_undecided_comes_first() -> None:
    """With the number of images that would decide on a line of its own."""
    lines = rendered(VERDICT).splitlines()
    assert lines[0] == "### ⚠️ INCONCLUSIVE: a.onnx on cpu"
    assert lines[2].startswith("- 1300 images cannot decide: accuracy drop 0.231 pp")
    assert lines[3].startswith("- 8,500 more images, about 9,800 in all, would show")


def test_what_was_only_measured_does_not_pass() -> None:
    """No limit, no mark of a pass."""
    lines = rendered(BARE).splitlines()
    assert lines[0] == "### 📏 MEASURED: a.onnx on cpu"
    assert "✅" not in rendered(BARE)


def test_a_pass_comes_first() -> None:
    """With what passed."""
    lines = rendered(PASSED).splitlines()
    assert lines[0] == "### ✅ PASS: a.onnx on cpu"
    assert lines[2] == "- 2.97 times as fast, at least the 2 requested."


def test_the_table_holds_both_networks() -> None:
    """Accuracy and latency side by side, with the difference and its interval."""
    rows = {row[0]: row[1:] for row in tables(rendered(VERDICT))[0]}
    assert rows["top-1"] == ["81.08 %", "80.85 %", "drop 0.23 pp, 95 % interval -0.48 to 0.98 pp"]
    assert rows["correct of 1,300"] == [
        "1,054",
        "1,051",
        "12 newly wrong, 9 newly correct, 5 wrong in both, p 0.664",
    ]
    assert (
        rows["latency p50, ms"][2] == "2.97 times as fast at the median, 95 % interval 2.91 to 3.02"
    )


def test_checks_are_a_table() -> None:
    """Limit, value and outcome of each."""
    assert tables(rendered(VERDICT))[1][2:] == [
        [
            "accuracy drop",
            "bound below 0.5 pp",
            "0.91 pp",
            "**INCONCLUSIVE**",
        ],
        ["speedup", "at least 2 x", "2.97 x", "pass"],
    ]


def test_every_row_has_the_columns_of_its_header() -> None:
    """Also where names are full of bars."""
    hostile = replace(
        VERDICT,
        classes=tuple(f"{name} | a | b" for name in CLASSES),
        accuracy=replace(ACCURACY, flips=tuple(replace(f, name="|x|.png") for f in ACCURACY.flips)),
    )
    for table in tables(rendered(hostile)):
        assert {len(row) for row in table} == {len(table[0])}


def test_ten_flips_are_shown_the_worst_first() -> None:
    """Newly wrong before newly correct, in each the most confident mistake; their number is stated."""
    text = rendered(replace(VERDICT, accuracy=replace(ACCURACY, flips=flips(4, 20, 5))))
    rows = tables(text)[-1][2:]
    assert len(rows) == FLIPS_SHOWN
    assert [row[0] for row in rows] == ["newly wrong"] * 4 + ["newly correct"] * 6
    assert rows[0][3:] == ["animal 3 &#40;3&#41;, 87 %", "animal 5 &#40;5&#41;, 43 %"]
    assert "<details><summary>29 labels changed, the 10 worst</summary>" in text


def test_few_flips_are_all_shown() -> None:
    """Without a word on what was left out; none give no list at all."""
    few = rendered(replace(VERDICT, accuracy=replace(ACCURACY, flips=flips(1, 1, 0))))
    assert "<summary>2 labels changed</summary>" in few
    assert "labels changed" not in rendered(BARE)


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "[x](http://a)",
        "@team #1 ~~x~~",
        "a\nb\n# c",
        "`code` *b* _i_ ![p](q)",
        "</details>",
        "&amp; &lt;",
    ],
)
def test_names_are_words_and_no_signs(name: str) -> None:
    """No character that Markdown or HTML reads stands as it is, and a reader sees the name."""
    hostile = replace(
        VERDICT, accuracy=replace(ACCURACY, flips=(replace(ACCURACY.flips[0], name=name),))
    )
    cell = tables(rendered(hostile))[-1][2][1]
    assert re.findall(SIGNS, re.sub(r"&#\d+;", "", cell)) == []
    assert html.unescape(cell) == " ".join(name.split())


def test_the_command_is_fenced_whatever_it_contains() -> None:
    """A fence longer than any row of backticks inside."""
    command = ("edgeres", "bench", "````.onnx")
    text = rendered(replace(VERDICT, provenance=replace(PROVENANCE, command=command)))
    assert "`````\nedgeres bench '````.onnx'\n`````" in text
    assert "```\nedgeres bench 'a b.onnx'" in rendered(VERDICT)


def test_hashes_are_kept() -> None:
    """Engine, reference and images can be identified."""
    text = rendered(VERDICT)
    assert all(digest * 32 in text for digest in ("1a", "2b", "4d"))


def test_an_earlier_run_is_a_row() -> None:
    """Named, with the drop since."""
    rows = tables(rendered(replace(VERDICT, regression=REGRESSION)))[0][-1]
    assert rows == [
        "since last&#95;week",
        "",
        "",
        "drop 0.31 pp, 95 % interval -0.14 to 0.81 pp",
    ]


def test_loadgens_word_is_a_row() -> None:
    """With its figure and VALID or INVALID."""
    rows = tables(rendered(replace(VERDICT, loadgen=LOADGEN)))[0][-1]
    assert rows == [
        "LoadGen, single-stream",
        "",
        "6.14 ms",
        "INVALID, 90th percentile latency",
    ]


def test_what_was_not_measured_is_stated() -> None:
    """A simulated engine has no latency."""
    assert ["latency", "not measured", "not measured", ""] in tables(rendered(BARE))[0]
