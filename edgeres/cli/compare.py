"""`edgeres compare`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeres.cli.options import PATH, common_options
from edgeres.cli.output import show, show_json


@click.command()
@click.argument("verdicts", type=PATH, nargs=-1, required=True)
@common_options
def compare(verdicts: tuple[Path, ...], as_json: bool) -> None:
    """Set engines side by side, from the JSON of bench --json: accuracy against latency.

    An engine is on the front unless another of its batch dominates it: as accurate and as fast, and
    better in one of both. Accuracy is compared with that of the first, image by image, where the images are the same.

    \b
    Example:
      edgeres compare fp16.json int8.json
    """
    from edgeres.report import render_ranking
    from edgeres.workflows import rank_runs  # scipy

    ranking = rank_runs(verdicts)
    if as_json:
        show_json(ranking)
    else:
        show(render_ranking(ranking))
