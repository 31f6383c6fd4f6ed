"""Verdicts in files to a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeres.core.verdict import History, Ranking, load_history, load_run
from edgeres.evaluation.history import history_of
from edgeres.evaluation.regression import rank


def rank_runs(paths: Sequence[Path]) -> Ranking:
    """Returns how the engines of several verdicts stand against each other.

    Args:
        paths: files that hold what `bench --json` printed.

    Raises:
        ArtifactError: a file is unreadable or no verdict.
        ConfigError: fewer than two, or two of one name.
    """
    return rank([load_run(path) for path in paths])


def follow_runs(path: Path) -> History:
    """Returns the course of accuracy and latency over the runs that `bench --history` wrote.

    Raises:
        ArtifactError: the file is unreadable, or a line is no verdict.
    """
    return history_of(load_history(path))
