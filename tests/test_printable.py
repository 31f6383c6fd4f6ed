"""What files hold is shown and never obeyed, in every form that people read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run
from digits import QUICK, Digits
from hypothesis import given
from hypothesis import strategies as st

from edgeres.printable import LONGEST, printable, shortened

TITLE = "\x1b]0;owned\x07"
HOSTILE = f"{TITLE}\x1b[31m\x9b2J\r\x08[/red][bold]:dog:\u202egnp\udcff\u2066"
"""A window title, colours, an erased screen, an overwritten line, rich's markup, an emoji, text
from right to left and a byte that is no UTF-8."""

OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What none of the outputs below may have; line breaks are the layout's."""


@given(st.text(st.characters()))
def test_nothing_is_obeyed_and_all_else_stays(text: str) -> None:
    """Any text: what is left says the same, and can be written as UTF-8."""
    shown = printable(text)
    assert not OBEYED.search(shown)
    assert "\n" not in shown
    shown.encode("utf-8")
    if "\\" not in text:
        again = re.sub(
            r"\\(?:x..|u....|[ntr])", lambda m: m[0].encode().decode("unicode_escape"), shown
        )
        assert again == text


@pytest.mark.parametrize(
    "text", ["", "Café ÄÖ 猫 🐈 \N{NO-BREAK SPACE}", "a\\x1bb", "👩‍🔬", "[/red]"]
)
def test_names_as_people_write_them_stay(text: str) -> None:
    """Accents, other scripts, emoji made of several, and signs of markup."""
    assert printable(text) == text


def test_a_long_message_keeps_its_start_and_its_advice() -> None:
    """The middle is left out, with its length."""
    message = f"x.onnx has {'n' * 10**6}. Export it again."
    short = shortened(message)
    assert len(short) < LONGEST + 50
    assert short.startswith("x.onnx has nnn")
    assert re.search(
        r"\[\.\.\. 996\d\d\d characters left out \.\.\.\] n+\. Export it again\.$", short
    )
    assert shortened("x" * LONGEST) == "x" * LONGEST


@pytest.fixture
def named(digits: Digits, tmp_path: Path) -> Path:
    """The digits' model under a hostile name."""
    path = tmp_path / f"{HOSTILE.replace('/', '_')}.onnx"
    shutil.copy(digits.model, path)
    return path


@pytest.mark.parametrize("color", [None, "1"])
def test_a_hostile_name_on_a_terminal(named: Path, tmp_path: Path, color: str | None) -> None:
    """In a table, a refusal, a status line and the log; rich's own colours are all that is left."""
    env = {"FORCE_COLOR": color, "COLUMNS": "80"} if color else {"COLUMNS": "80"}
    missing = tmp_path / f"no{HOSTILE.replace('/', '_')}"
    build = ("build-engine", named, "--precision", "fp32", "-o", tmp_path / f"o{named.name}")
    for words in (("inspect", missing), build, ("compare", named)):
        result = run(*words, env=env)
        shown = result.stdout + result.stderr
        if color:
            # The colours of a table, and what rich moves its progress bar with.
            shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown)
        assert not OBEYED.search(shown), repr(shown)
        assert "owned" in shown


def test_without_the_escaper_the_terminal_would_obey(
    named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above rests on."""
    monkeypatch.setattr("edgeres.cli.output.printable", lambda text, keep="": text)
    assert TITLE in run("compare", named).stderr


def stdout_to(target: Path | None, *words: object) -> subprocess.CompletedProcess[str]:
    """Runs a command whose stdout goes to a file, or into a pipe."""
    command = [sys.executable, "-m", "edgeres", *map(str, words)]
    if target is None:
        return subprocess.run(command, capture_output=True, text=True)
    with target.open("w") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.PIPE, text=True)


def test_no_report_goes_where_the_result_goes(digits: Digits, tmp_path: Path) -> None:
    """One JSON object is all that stdout has; a file that stdout goes to is not replaced under it."""
    bench = digits.words("bench {engine} --reference {model} --data {test} " + QUICK)
    refused = "is where stdout goes, and both the result and this file would be written there."
    for name in ("/dev/stdout", "/proc/self/fd/1"):
        done = stdout_to(None, *bench, "--json", "--markdown", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{name} {refused}" in done.stderr
    path = tmp_path / "x"
    done = stdout_to(path, "explain", "resnet18", "--svg", path)
    assert (done.returncode, path.read_text()) == (2, "")
    assert f"{path} {refused}" in done.stderr
    done = stdout_to(Path(os.devnull), "explain", "resnet18", "--json", "--svg", os.devnull)
    assert done.returncode == 0
