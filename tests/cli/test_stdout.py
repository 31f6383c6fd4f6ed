"""Standard output is an output: what it does not take ends the command with 1 and a sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import passed, run
from digits import QUICK, Digits

pytestmark = pytest.mark.usefixtures("one_core")

LOST = "Error: The result was not written to stdout, or not all of it: "

SEEDED = (
    "import contextlib, edgeres.cli as cli; cli.checked_stdout = contextlib.nullcontext; "
    "cli.main(prog_name='edgeres')"
)
"""The command line without the check."""

LINES = {
    "table": "explain resnet18",
    "json": "explain resnet18 --json",
    "help": "--help",
    "help of a command": "bench --help",
    "version": "--version",
    "doctor": "doctor --json",
    "inspect": "inspect {model}",
    "bench": "bench {engine} --reference {model} --data {test} --json " + QUICK,
}


def shell(
    line: str, redirected: str, start: str = "-m edgeres"
) -> subprocess.CompletedProcess[str]:
    """Returns what a real child answers whose standard output a shell has redirected."""
    return subprocess.run(
        ["bash", "-c", f"'{sys.executable}' {start} {line} {redirected}"],
        capture_output=True,
        text=True,
        check=False,
    )


def line_of(name: str, digits: Digits) -> str:
    """Returns a command line with the digits' files."""
    return " ".join(digits.words(LINES[name]))


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize(
    ("redirected", "reason"),
    [(">/dev/full", "No space left on device."), (">&-", "Bad file descriptor.")],
    ids=["full", "closed"],
)
def test_what_stdout_does_not_take_is_an_error(
    redirected: str, reason: str, name: str, digits: Digits
) -> None:
    """One sentence on stderr, whatever prints: a table, JSON, or click's help and version."""
    ended = shell(line_of(name, digits), redirected)
    assert ended.returncode == 1
    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("Error")]
    assert said.startswith(LOST + reason)
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.parametrize("name", ["table", "json", "help of a command", "version"])
@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&-"], ids=["full", "closed"])
def test_the_code_says_it_where_stderr_fails_too(name: str, stderr: str, digits: Digits) -> None:
    """Nobody can read the sentence."""
    assert shell(line_of(name, digits), f">/dev/full {stderr}").returncode == 1


@pytest.mark.parametrize("name", ["table", "json", "help of a command", "version"])
def test_a_reader_that_has_gone_ends_it_quietly(name: str, digits: Digits) -> None:
    """As `| head` does; the code is 1, since not everything was written."""
    ended = shell(line_of(name, digits), "| (exec <&-; sleep 5) ; exit ${PIPESTATUS[0]}")
    assert (ended.returncode, ended.stderr) == (1, "")


def test_a_closed_stdin_and_stderr_are_no_error(digits: Digits) -> None:
    """Nothing is read from one, and no file gets the number of the other."""
    ended = shell(line_of("json", digits), "<&- 2>&-")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["schema_version"] == 1


def test_a_closed_stdout_is_no_error_where_nothing_is_printed(
    digits: Digits, tmp_path: Path
) -> None:
    """And what the file gets is the file's: no library prints into it."""
    model, beside = tmp_path / "a.onnx", tmp_path / "b.onnx"
    line = f"export resnet20 --weights {digits.weights} --preset digits -o "
    assert shell(f"{line} {model}", ">&- 2>&- <&-").returncode == 0
    assert shell(f"{line} {beside}", "").returncode == 0
    assert model.read_bytes() == beside.read_bytes()


@pytest.fixture
def page_sized_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one page."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_truncated_object_is_never_a_success(digits: Digits, page_sized_disk: Path) -> None:
    """The first page of the verdict is on the disk, and the code says that it is not all."""
    ended = shell(line_of("bench", digits), f"> {page_sized_disk / 'verdict.json'}")
    assert (page_sized_disk / "verdict.json").stat().st_size == 4096
    assert ended.returncode == 1
    assert LOST in ended.stderr


@pytest.mark.parametrize(
    ("name", "redirected"), [("json", ">&-"), ("version", ">/dev/full"), ("table", ">/dev/full")]
)
def test_without_the_check_these_tests_would_fail(
    name: str, redirected: str, digits: Digits
) -> None:
    """A closed stdout would be a success, and a full one a traceback."""
    ended = shell(line_of(name, digits), redirected, f'-c "{SEEDED}"')
    assert ended.returncode == 0 or "Traceback" in ended.stderr


@pytest.mark.parametrize("width", ["0", "-3", "x", ""])
def test_a_width_that_is_none_prints_at_the_usual_one(width: str) -> None:
    """COLUMNS=0, as some CI systems set it, printed nothing."""
    usual = passed("explain", "resnet18")
    ended = run("explain", "resnet18", env={"COLUMNS": width})
    assert (ended.exit_code, ended.stdout) == (0, usual)
