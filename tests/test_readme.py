"""README.md and the pages that go on with its files do what they say: each block that they mark is executed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_core")

ROOT = Path(__file__).resolve().parents[1]
EDGERES = Path(sys.executable).with_name("edgeres")
MARK = "<!-- run -->"
TIMEOUT_S = 300
# In order: the later ones use what README's path has made.
PAGES = ("README.md", "docs/engines.md", "docs/before_a_board.md")

_BLOCK = re.compile(rf"^{MARK}\n```(console|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*)", re.MULTILINE)


def runnable_blocks(text: str) -> list[str]:
    """Returns the commands of each marked block; of a `console` one those behind a `$ `.

    Raises:
        ValueError: a mark stands before anything else, or a block holds no command.
    """
    blocks = [
        "\n".join(_COMMAND.findall(body)) if language == "console" else body
        for language, body in _BLOCK.findall(text)
    ]
    if len(blocks) != text.count(MARK) or not all(block.strip() for block in blocks):
        raise ValueError(f"each {MARK} needs a console or bash block with a command right below it")
    return blocks


def run_block(commands: str, folder: Path) -> str:
    """Runs commands in a folder, with this interpreter's `edgeres`, and returns what they print.

    Raises:
        AssertionError: a command failed; the message has all of them and what they said.
    """
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env={**os.environ, "PATH": f"{EDGERES.parent}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        said = f"{done.stdout}{done.stderr}"
        raise AssertionError(f"exit code {done.returncode} of\n{commands}\n{said}")
    return done.stdout


@pytest.mark.skipif(not EDGERES.exists(), reason="edgeres is not installed beside this Python")
def test_the_commands_of_the_readme_succeed(tmp_path: Path) -> None:
    """In order, in one folder that is empty at first."""
    for page in PAGES:
        blocks = runnable_blocks((ROOT / page).read_text(encoding="utf-8"))
        assert blocks, page
        for block in blocks:
            run_block(block, tmp_path)


def test_marked_blocks_are_found() -> None:
    """A console block gives its commands without their output, a bash block all of itself."""
    text = (
        f"# Use\n{MARK}\n```console\n$ a --x \\\n    --y\nPASS\n$ b\n```\n"
        f"```bash\nnot run\n```\n\n{MARK}\n```bash\nc\nd\n```\n"
    )
    assert runnable_blocks(text) == ["a --x \\\n    --y\nb", "c\nd\n"]


@pytest.mark.parametrize(
    "below", ["\n```bash\na\n```\n", "```json\n{}\n```\n", "```console\na\n```\n"]
)
def test_a_mark_without_commands_is_refused(below: str) -> None:
    """An empty line between, another language or no prompt must not pass for a checked block."""
    with pytest.raises(ValueError, match="needs a console or bash block with a command"):
        runnable_blocks(f"{MARK}\n{below}")


def test_blocks_run_in_the_folder(tmp_path: Path) -> None:
    """What one block writes, the next one reads."""
    run_block("echo 3 > a", tmp_path)
    assert run_block("cat a", tmp_path) == "3\n"


@pytest.mark.parametrize(
    "commands", ["echo seen; exit 3", "echo seen; (exit 3)\ntrue", "(echo seen; exit 3) | cat"]
)
def test_a_block_that_fails_is_found(commands: str, tmp_path: Path) -> None:
    """Its exit code, its commands and its output are in the message, in whichever line it fails."""
    with pytest.raises(AssertionError) as caught:
        run_block(commands, tmp_path)
    assert str(caught.value) == f"exit code 3 of\n{commands}\nseen\n"
