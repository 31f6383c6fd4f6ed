"""Progress on a terminal: every long stage has a bar, and none is drawn within a timing."""

from __future__ import annotations

import ast
import io
import logging
import os
import pty
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import click
import numpy as np
import pytest
from digits import Digits
from rich.text import Text

from benchmarks.silence import PATH, silence
from edgeres.cli import main, output, progress_display
from edgeres.cli.output import progress_bars
from edgeres.core.bench_requests import BenchRequest
from edgeres.evaluation.benchmark import benchmark_pair
from edgeres.progress import TIMED_STAGES
from edgeres.testing import FakeRunner


def on_a_terminal(*command: str) -> str:
    """Returns what a command writes to a pseudo-terminal of 80 columns on stderr."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    with subprocess.Popen(
        [sys.executable, "-m", "edgeres", *command],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        shown = b""
        # Linux ends a terminal whose other side has closed with an error.
        while chunk := _read(ours):
            shown += chunk
        assert process.wait() == 0, shown
    os.close(ours)
    return plain(shown.decode())


def plain(shown: str) -> str:
    """Returns what a terminal shows without the codes that move and colour."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


def test_every_stage_of_bench_and_export_has_a_bar(digits: Digits, tmp_path: Path) -> None:
    """With its name and how much is done, up to the end."""
    line = (
        "bench {engine} --reference {model} --data {test} --samples 64 --iterations 40 --no-energy"
    )
    shown = on_a_terminal(*digits.words(line))
    for stage, end in (("Evaluating", "64/64"), ("Timing", "2/2"), ("Checking ranges", "32/32")):
        assert re.search(rf"{stage} [^\n]*{end} done, left", shown)
    line = "export resnet20 --weights {weights} --preset digits -o {out}"
    shown = on_a_terminal(*digits.words(line, out=tmp_path / "m.onnx"))
    assert re.search(r"Exporting [^\n]*11/11 done, left", shown)


@pytest.fixture
def beating(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal whose bars are drawn every few milliseconds between steps."""
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setattr(progress_display, "BEAT_S", 0.005)
    monkeypatch.setattr(output, "is_quiet", lambda: False)


def drawn(captured: pytest.CaptureFixture[str], word: str) -> int:
    """Returns how often a word was drawn; waits until it was twice, but not for ever."""
    count = 0
    for _ in range(400):
        time.sleep(0.005)
        count += captured.readouterr().err.count(word)
        if count > 1:
            break
    return count


@pytest.mark.usefixtures("beating")
def test_a_stage_without_steps_is_drawn_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Before the first stage, within one, and behind its end, where its bar would look done."""
    with progress_bars() as progress:
        assert drawn(capsys, "Starting")
        progress("Calibrating", 0, 2)
        assert drawn(capsys, "Calibrating")
        assert "Starting" not in capsys.readouterr().err
        progress("Calibrating", 2, 2)
        assert drawn(capsys, "Working")
        progress("Evaluating", 1, 2)
        assert drawn(capsys, "Evaluating")


@pytest.mark.usefixtures("beating")
@pytest.mark.parametrize("stage", ["Timing", "Timing 4 streams", "LoadGen", "Profiling"])
def test_no_thread_draws_within_a_timing(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar is drawn where such a stage reports; behind its end it is drawn as any other."""
    before = threading.active_count()
    with progress_bars() as progress:
        progress("Evaluating", 1, 2)
        assert threading.active_count() == before + 1
        progress(stage, 0, 2)
        assert threading.active_count() == before
        capsys.readouterr()
        time.sleep(0.05)
        assert capsys.readouterr().err == ""
        progress(stage, 2, 2)
        assert drawn(capsys, "Working")
    assert threading.active_count() == before


def outside_of_bars(source: str) -> list[str]:
    """Returns the imports of workflows, which take a second, that no bar is open around."""
    tree = ast.parse(source)
    inside = {
        id(node)
        for block in ast.walk(tree)
        if ast.unparse(block).startswith("if TYPE_CHECKING")
        or (isinstance(block, ast.With) and "progress_bars()" in ast.unparse(block).split(":\n")[0])
        for node in ast.walk(block)
    }
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        # A job for a cluster is made of its parts while bars are open.
        and re.search(r"workflows\b(?!\.parts)", ast.unparse(node))
        and id(node) not in inside
    ]


def test_bars_are_open_before_what_takes_time_is_loaded() -> None:
    """In every command but those that answer at once or only check their options."""
    at_once = {"compare", "doctor", "explain", "inspect"}
    folder = Path(output.__file__).parent
    late = {path.stem: outside_of_bars(path.read_text()) for path in folder.glob("*.py")}
    assert {name for name, imports in late.items() if imports} <= at_once


def test_an_import_before_the_bars_would_be_noticed() -> None:
    """And one within them not."""
    line = "from edgeres.workflows import bench_engine\n"
    assert outside_of_bars(f"{line}with progress_bars() as p:\n    work(p)\n") == [line.strip()]
    assert outside_of_bars(f"with folder as f, progress_bars() as p:\n    {line}") == []


def test_the_stages_that_time_are_known_by_their_names() -> None:
    """Each stage that a benchmark reports while it times begins as `TIMED_STAGES` do."""
    runner = FakeRunner(logits=lambda images: np.zeros((len(images), 10), np.float32), latency_ns=9)
    seen: list[str] = []
    request = BenchRequest(iterations=4, warmup=1)
    images = np.zeros((1, 3, 8, 8), np.float32)
    benchmark_pair(
        runner,
        runner,
        images,
        request,
        clock=runner.clock,
        progress=lambda stage, *_: seen.append(stage),
    )
    assert seen
    assert all(stage.startswith(TIMED_STAGES) for stage in seen)


def screen(written: str) -> list[str]:
    """Returns the lines that a terminal shows after codes that go up a line or erase one."""
    lines, row, column = [""], 0, 0
    for code, letter, shown in re.findall(r"\x1b\[([0-9;?]*)([a-zA-Z])|([^\x1b])", written):
        if letter == "A":
            row -= int(code or 1)
        elif letter == "K":
            lines[row] = ""
        elif shown == "\r":
            column = 0
        elif shown == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif shown:
            lines[row] = lines[row].ljust(column)[:column] + shown + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines if line.strip()]


@pytest.mark.usefixtures("beating")
def test_what_is_printed_meanwhile_has_lines_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result, a warning and a status between two steps; the bar goes on below."""
    monkeypatch.setattr(progress_display, "BEAT_S", 60)
    monkeypatch.setattr(progress_display, "REDRAW_S", 0)
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(logging.getLogger("edgeres"), "handlers", [])
    with click.Context(click.Command("predict")):
        output.log_to_stderr()
        with progress_bars() as progress:
            progress("Predicting", 0, 2)
            output.show(Text("a row"))
            logging.getLogger("edgeres.any").warning("a warning")
            output.show_status("a status")
            progress("Predicting", 1, 2)
            *lines, bar = screen(terminal.getvalue())
        assert lines == ["a row", "WARNING edgeres.any: a warning", "a status"]
        assert re.match("Predicting .* 1/2 done, left", bar)
        assert screen(terminal.getvalue()) == lines


@pytest.mark.usefixtures("beating")
def test_what_goes_into_a_pipe_is_not_drawn_above_the_bar(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever prints it: the bars are on stderr alone."""
    with progress_bars() as progress:
        progress("Predicting", 1, 2)
        output.show(Text("a row"))
        sys.stdout.write("of a library\n")
    assert capsys.readouterr().out == "a row\nof a library\n"


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_figure_of_a_bar_is_cut(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bar itself becomes shorter; the note goes where there is no room."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setattr(output, "is_quiet", lambda: False)
    with progress_bars() as progress:
        progress("Correcting the CPU's biases", 1024, 50000, "a\x1b]0;note of a step")
        shown = plain(capsys.readouterr().err)
    assert "1024/50000 done, left" in shown
    assert "\x1b" not in shown
    assert re.search(r"after 0:00:0\d", shown)


def test_silence_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest time without output, with the line before it."""
    (tmp_path / "edgeres").mkdir()
    (tmp_path / "edgeres" / "__init__.py").touch()
    (tmp_path / "edgeres" / "__main__.py").write_text(
        "import os, time\n"
        "print('first')\n"
        "print('second', flush=True)\n"
        # Longer than the start of a busy machine's Python.
        "time.sleep(0.2 + 2 * (time.monotonic() - float(os.environ['BEGAN'])))\n"
        "print('third')\n"
    )
    monkeypatch.setenv("BEGAN", str(time.monotonic()))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = silence("inspect", tmp_path, over_s=0.2)
    assert (found.exit_code, found.after) == (0, "second")
    assert 0.2 < found.longest_s <= found.seconds
    assert 1 <= found.times_over <= 3


@pytest.mark.parametrize("command", PATH)
def test_the_path_that_is_listened_to_is_one_of_commands(command: str) -> None:
    """Every line of it is understood: command, options and their values."""
    words = command.format(model="m.onnx", data="d", calib_data="c", loadgen_s=1.0)
    name, *rest = shlex.split(words)
    # A command keeps the help option of its first context for the other tests of the process.
    root = click.Context(main, info_name="edgeres", **main.context_settings)
    main.commands[name].make_context(name, rest, parent=root)
