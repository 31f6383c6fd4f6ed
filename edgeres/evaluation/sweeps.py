"""Runs of a sweep with their places, and boards of one kind set side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from edgeres.core.sweep import GroupedBoard, GroupedRun, SweepCase, SweepGroup, SweepRun
from edgeres.core.verdict import PastRun, Platform
from edgeres.evaluation.fronts import Point, standings
from edgeres.statistics import far_from_others

_LEAST_DEVIATION_PCT = 2.0
"""Of the latency: less can be between two runs of one board."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A combination with the run that its verdict holds."""

    case: SweepCase
    run: PastRun
    verdict: str
    """Its file, below the folder of the sweep."""
    board: str | None
    """None: this machine."""

    @property
    def p50_ms(self) -> float | None:
        """Median latency."""
        return None if self.run.latency is None else self.run.latency.engine.p50_ms

    @property
    def images_per_s(self) -> float | None:
        """Measured, or derived from the latency."""
        throughput = self.run.throughput
        return None if throughput is None else throughput.engine_images_per_s


def placed_runs(measured: Sequence[Measured]) -> tuple[SweepRun, ...]:
    """Returns runs that compare, each with the places of its combination on the fronts."""
    combined = {run.name: run for run in _combinations(measured)}
    return tuple(
        replace(
            combined[one.case.name],
            board=one.board,
            verdict=one.verdict,
            outcome=None if one.run.outcome is None else str(one.run.outcome),
            top1=one.run.top1,
            p50_ms=one.p50_ms,
            images_per_s=one.images_per_s,
        )
        for one in measured
    )


def comparable(measured: Sequence[Measured]) -> tuple[tuple[Platform, tuple[Measured, ...]], ...]:
    """Returns the runs that compare, by what they were measured on.

    What differs in kind of board, power mode or version of a runtime is apart, and so may be runs
    of one board.
    """
    # A run records the runtime of its own engine; the board's other runs tell the rest.
    recorded: dict[str | None, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for one in measured:
        for name, text in one.run.platform.versions.items():
            recorded[one.board][name].add(text)
    groups = defaultdict(list)
    for one in measured:
        agreed = {n: min(texts) for n, texts in recorded[one.board].items() if len(texts) == 1}
        versions = dict(sorted({**agreed, **one.run.platform.versions}.items()))
        platform = replace(one.run.platform, versions=versions)
        groups[platform.kind, platform.power_mode, tuple(versions.items())].append((platform, one))
    return tuple((members[0][0], tuple(one for _, one in members)) for members in groups.values())


def board_group(platform: Platform, measured: Sequence[Measured]) -> SweepGroup:
    """Returns the medians over boards that compare, their spread, and who is beyond it."""
    by_case = _by_case(measured)
    deviations: dict[str, list[float]] = {str(one.board): [] for one in measured}
    for runs in by_case.values():
        latencies = {str(one.board): one.p50_ms for one in runs if one.p50_ms is not None}
        for board, latency in latencies.items():
            deviations[board].append(100 * (latency / median(latencies.values()) - 1))
    known = {board: median(each) for board, each in deviations.items() if each}
    far = dict(zip(known, far_from_others([*known.values()], _LEAST_DEVIATION_PCT), strict=True))
    return SweepGroup(
        kind=platform.kind,
        power_mode=platform.power_mode,
        versions=platform.versions,
        boards=tuple(
            GroupedBoard(name=name, deviation_pct=known.get(name), differs=far.get(name, False))
            for name in deviations
        ),
        runs=tuple(_grouped(run, by_case[run.name]) for run in _combinations(measured)),
    )


def _combinations(measured: Sequence[Measured]) -> tuple[SweepRun, ...]:
    """Returns the medians of each combination over its boards, with its places."""
    by_case = _by_case(measured)
    points = [
        Point(
            name=name,
            group=runs[0].case.batch,
            top1=median(one.run.top1 for one in runs),
            latency_ms=_median([one.p50_ms for one in runs]),
            images_per_s=_median([one.images_per_s for one in runs]),
        )
        for name, runs in by_case.items()
    ]
    combined = []
    for runs, point, place in zip(by_case.values(), points, standings(points), strict=True):
        case, throughput = runs[0].case, runs[0].run.throughput
        outcomes = {one.run.outcome for one in runs}
        (outcome,) = outcomes if len(outcomes) == 1 else (None,)
        combined.append(
            SweepRun(
                name=case.name,
                precision=case.precision,
                method=case.method,
                batch=case.batch,
                target=case.target,
                board=None,
                outcome=None if outcome is None else str(outcome),
                top1=point.top1,
                p50_ms=point.latency_ms,
                images_per_s=point.images_per_s,
                streams=None if throughput is None else throughput.streams,
                on_front=place.on_latency_front or place.on_throughput_front,
                on_latency_front=place.on_latency_front,
                on_throughput_front=place.on_throughput_front,
                dominated_by=place.dominated_by,
            )
        )
    return tuple(combined)


def _by_case(measured: Sequence[Measured]) -> Mapping[str, Sequence[Measured]]:
    by_case = defaultdict(list)
    for one in measured:
        by_case[one.case.name].append(one)
    return by_case


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _grouped(combined: SweepRun, runs: Sequence[Measured]) -> GroupedRun:
    latencies = [one.p50_ms for one in runs if one.p50_ms is not None]
    spread = 100 * (max(latencies) - min(latencies)) / median(latencies) if latencies else 0.0
    accuracies = [one.run.top1 for one in runs]
    return GroupedRun(
        run=combined,
        boards=len(runs),
        spread_pct=spread if len(latencies) > 1 else None,
        top1_spread_pp=100 * (max(accuracies) - min(accuracies)),
    )
