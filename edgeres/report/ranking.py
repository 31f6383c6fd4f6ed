"""Several engines side by side, for a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from edgeres.core.verdict import Ranking
from edgeres.report.facts import top1_change
from edgeres.report.tables import plain, ruled_table
from edgeres.report.words import probability


def render_ranking(ranking: Ranking) -> Group:
    """Returns what a rich Console prints: a table, then who is on the front, then warnings."""
    first, *_ = ranking.standings
    metered = any(standing.run.joules_per_image is not None for standing in ranking.standings)
    energy = ("J/image",) if metered else ()
    table = ruled_table("engine", "front", "top-1", "drop pp, 95 %", "p50 ms", "x", *energy)
    remarks = []
    for standing in ranking.standings:
        run, latency, joules = standing.run, standing.run.latency, standing.run.joules_per_image
        low, high = run.ci95_pp
        cells = [
            "*" if standing.on_front else "",
            f"{100 * run.top1:.2f}",
            f"{run.drop_pp:.2f}, {low:.2f} to {high:.2f}",
            "-" if latency is None else f"{latency.engine.p50_ms:.3g}",
            "-" if latency is None else f"{latency.speedup:.2f}",
        ]
        if metered:
            cells.append("-" if joules is None else f"{joules:.3g}")
        table.add_row(Text(run.name), *cells)
        facts = []
        if standing.dominated_by is not None:
            facts.append(f"dominated by {standing.dominated_by}")
        if (change := standing.against_first) is not None:
            words = top1_change(change.drop_pp, change.ci95_pp).words
            p_value = probability(change.p_value)
            facts.append(f"top-1 compared with {first.run.name}: {words}, p {p_value}")
        if facts:
            remarks.append(f"{run.name}: {'; '.join(facts)}")
    remarks += [f"Warning: {warning}" for warning in ranking.warnings]
    front = ", ".join(standing.run.name for standing in ranking.standings if standing.on_front)
    return Group(
        table,
        Text(),
        Text(f"Pareto front, accuracy against latency: {front or 'no engine was timed'}"),
        *map(plain, remarks),
    )
