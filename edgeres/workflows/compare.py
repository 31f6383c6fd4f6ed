"""Verdicts in files to a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeres.core.verdict import Ranking, load_run
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
