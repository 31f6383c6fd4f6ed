"""Several engines side by side, for a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from edgeres.core.verdict import Ranking, Standing
from edgeres.plurals import plural
from edgeres.report.facts import top1_change
from edgeres.report.table import STYLES
from edgeres.report.tables import plain, ruled_table
from edgeres.report.words import change, probability


def render_ranking(ranking: Ranking) -> Group:
    """Returns what a rich Console prints: a table, then who is on the front, then warnings."""
    first, *_ = ranking.standings
    metered = any(standing.run.joules_per_image is not None for standing in ranking.standings)
    energy = ("J/image",) if metered else ()
    headers = ("outcome", "top-1", "change pp", "batch", "p50 ms", "images/s", "x", *energy)
    table = ruled_table("engine", *headers, gap=0)
    remarks = []
    # Engines of one batch stand together, since only their latencies compare.
    for standing in sorted(ranking.standings, key=_batch):
        run, latency, throughput = standing.run, standing.run.latency, standing.run.throughput
        joules = run.joules_per_image
        drop = top1_change(run.drop_pp, run.ci95_pp)
        cells = [
            "-" if run.outcome is None else Text(run.outcome, STYLES[run.outcome]),
            f"{100 * run.top1:.2f}",
            change(run.drop_pp, unit=False),
            "-" if latency is None else str(latency.batch_size),
            "-" if latency is None else f"{latency.engine.p50_ms:.3g}",
            "-" if throughput is None else f"{throughput.engine_images_per_s:.1f}",
            "-" if latency is None else f"{latency.speedup:.2f}",
        ]
        if metered:
            cells.append("-" if joules is None else f"{joules:.3g}")
        table.add_row(Text(f"{run.name} *" if standing.on_front else run.name), *cells)
        facts = [f"{'top-1 ' * drop.is_gain}{drop.words} against its reference"]
        if throughput is not None and (streams := throughput.streams) is not None:
            facts.append(f"images/s measured with {streams} {plural('stream', streams)}")
        if standing.dominated_by is not None:
            facts.append(f"dominated by {standing.dominated_by}")
        if (other := standing.against_first) is not None:
            words = top1_change(other.drop_pp, other.ci95_pp).words
            p_value = probability(other.p_value)
            facts.append(f"top-1 compared with {first.run.name}: {words}, p {p_value}")
        remarks.append(f"{run.name}: {'; '.join(facts)}")
    remarks += [f"Warning: {warning}" for warning in ranking.warnings]
    front = ", ".join(standing.run.name for standing in ranking.standings if standing.on_front)
    return Group(
        table,
        Text(),
        Text(f"* Pareto front, accuracy against latency: {front or 'no engine was timed'}"),
        *map(plain, remarks),
    )


def _batch(standing: Standing) -> float:
    """Returns the images per inference of its latency; what was not timed stands last."""
    latency = standing.run.latency
    return float("inf") if latency is None else latency.batch_size
