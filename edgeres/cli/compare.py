"""`edgeres compare`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeres.cli.options import PATH, common_options
from edgeres.cli.output import show, show_json, show_status
from edgeres.files import check_outputs, write_report


@click.command()
@click.argument("verdicts", type=PATH, nargs=-1)
@click.option("--history", type=PATH, metavar="FILE", help="Show the runs of bench --history.")
@click.option("--report", "html", type=PATH, metavar="FILE", help="HTML page of --history.")
@common_options
def compare(
    verdicts: tuple[Path, ...], history: Path | None, html: Path | None, as_json: bool
) -> None:
    """Set engines side by side, from the JSON of bench --json: accuracy against latency.

    An engine is on the front unless another of its batch dominates it: as accurate and as fast, and
    better in one of both. Accuracy is compared with that of the first, image by image, where the images are the same.

    With --history the course of accuracy and latency over time, each model, target, machine and
    batch by itself; a change is named only where a test with 5 % false alarms finds one.

    \b
    Example:
      edgeres compare fp16.json int8.json
      edgeres compare --history runs.jsonl --report runs.html
    """
    from edgeres.report import history_page, render_history, render_ranking
    from edgeres.workflows import follow_runs, rank_runs  # scipy

    if bool(verdicts) is (history is not None):
        raise click.UsageError("Pass VERDICTS..., or --history FILE and none.")
    if html is not None:
        if history is None:
            raise click.UsageError("--report needs --history: it shows the course of its runs.")
        check_outputs([], [history], reports=[html])
    if history is not None:
        courses = follow_runs(history)
        if html is not None:
            write_report(html, history_page(courses))
            show_status(f"{html}: the course of {history}")
        if as_json:
            show_json(courses)
        else:
            show(render_history(courses))
        return
    ranking = rank_runs(verdicts)
    if as_json:
        show_json(ranking)
    else:
        show(render_ranking(ranking))
