"""The command line in this process: what it answers, and what it refuses with."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

from click.testing import CliRunner, Result

from edgeres.cli import main


def run(*arguments: object, env: Mapping[str, str] | None = None) -> Result:
    """Returns what `edgeres` answers to these words, with stdout and stderr apart.

    Raises:
        AssertionError: the command ended with a traceback.
    """
    result = CliRunner().invoke(main, [*map(str, arguments)], prog_name="edgeres", env=env)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise AssertionError("".join(traceback.format_exception(result.exception)))
    return result


def passed(*arguments: object) -> str:
    """Returns the standard output of a command that succeeds."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(*arguments: object, code: int = 1) -> str:
    """Returns the sentence that a command refuses with; standard output must stay empty."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    return result.stderr.partition("Error: ")[2].strip()
