"""Several engines side by side, for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgeres.core.verdict import Ranking, Standing
from edgeres.report.table import columns


def render_ranking(ranking: Ranking) -> Group:
    """Returns what a rich Console prints: a table, then who is on the front, then warnings."""
    front = ", ".join(s.run.name for s in ranking.standings if s.on_front)
    return Group(
        _table(ranking),
        Text(),
        Text(f"Pareto front, accuracy against latency: {front or 'no engine was timed'}"),
        *_remarks(ranking),
    )


def _table(ranking: Ranking) -> Table:
    metered = any(s.run.joules_per_image is not None for s in ranking.standings)
    energy = ("J/image",) if metered else ()
    table = columns("engine", "front", "top-1", "drop pp, 95 %", "p50 ms", "x", *energy)
    for standing in ranking.standings:
        cells = (*_cells(standing), *(_energy(standing) for _ in energy))
        table.add_row(Text(standing.run.name), *cells)
    return table


def _cells(standing: Standing) -> tuple[str, ...]:
    run, latency = standing.run, standing.run.latency
    low, high = run.ci95_pp
    return (
        "*" if standing.on_front else "",
        f"{100 * run.top1:.2f}",
        f"{run.drop_pp:.2f}, {low:.2f} to {high:.2f}",
        "-" if latency is None else f"{latency.engine.p50_ms:.3g}",
        "-" if latency is None else f"{latency.speedup:.2f}",
    )


def _energy(standing: Standing) -> str:
    joules = standing.run.joules_per_image
    return "-" if joules is None else f"{joules:.3g}"


def _remarks(ranking: Ranking) -> list[RenderableType]:
    first = ranking.standings[0].run.name
    told = [_remark(standing, first) for standing in ranking.standings]
    lines = [*(line for line in told if line), *(f"Warning: {w}" for w in ranking.warnings)]
    return [Text(line) for line in lines]


def _remark(standing: Standing, first: str) -> str:
    """Says by whom an engine is beaten, and how its accuracy stands against the first's."""
    facts = []
    if standing.dominated_by is not None:
        facts.append(f"{standing.dominated_by} is as often right and as fast, and better in one")
    if (change := standing.against_first) is not None:
        low, high = change.ci95_pp
        facts.append(
            f"{change.drop_pp:.2f} pp less often right than {first}, {low:.2f} to {high:.2f}, "
            f"p {change.p_value:.3g}"
        )
    return f"{standing.run.name}: {'; '.join(facts)}" if facts else ""
