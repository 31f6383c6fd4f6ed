"""`-v` and `-q` set how much of the library's log reaches standard error, for one command."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from edgeres import workflows as pipeline
from edgeres.cli import main

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@pytest.fixture(autouse=True)
def _silent_afterwards() -> Iterator[None]:
    """Takes the handler of the last command, whose stream is closed, off the library's log."""
    yield
    logging.getLogger("edgeres").handlers.clear()


def told(monkeypatch: pytest.MonkeyPatch, *options: str) -> list[str]:
    """Returns what a command shows that logs one message at each level."""

    def log_all(path: object) -> None:
        for level in LEVELS:
            logging.getLogger("edgeres.any").log(getattr(logging, level), "said")
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "inspect_artifact", log_all)
    done = CliRunner().invoke(main, ["inspect", "a", *options])
    assert (done.exit_code, done.stdout) == (130, "")
    *lines, last = done.stderr.splitlines()
    assert last == "Interrupted: nothing half-written was left behind."
    return lines


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], LEVELS[2:]),
        (["-v"], LEVELS[1:]),
        (["-vv"], LEVELS),
        (["-v", "-v"], LEVELS),
        (["-q"], LEVELS[3:]),
    ],
)
def test_each_option_shows_its_levels(
    options: list[str], shown: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings and errors by default; each message once, with where it comes from."""
    assert told(monkeypatch, *options) == [f"{level} edgeres.any: said" for level in shown]


def test_one_command_does_not_set_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, as a notebook or a test has it: no message twice, no level kept."""
    default = told(monkeypatch)
    told(monkeypatch, "-vv")
    told(monkeypatch, "-q")
    assert told(monkeypatch) == default
    assert len(logging.getLogger("edgeres").handlers) == 1
