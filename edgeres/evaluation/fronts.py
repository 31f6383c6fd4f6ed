"""Which of several runs are on the Pareto fronts, and which dominates which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A run as far as it is compared."""

    name: str
    group: int
    """Batch: latencies of different ones do not compare."""
    top1: float
    latency_ms: float | None
    images_per_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run stands."""

    on_latency_front: bool
    on_throughput_front: bool
    dominated_by: tuple[str, ...]
    """Runs of its batch that are as accurate and as fast, and better in one."""


def standings(points: Sequence[Point]) -> tuple[Place, ...]:
    """Returns the place of each run: accuracy against latency and against images a second.

    Latency is compared within a batch, images a second across batches. A run without a latency
    is on neither front.
    """
    return tuple(_place(point, points) for point in points)


def _place(point: Point, points: Sequence[Point]) -> Place:
    if point.latency_ms is None or point.images_per_s is None:
        return Place(on_latency_front=False, on_throughput_front=False, dominated_by=())
    timed = [
        (other, (other.top1, -other.latency_ms), (other.top1, other.images_per_s))
        for other in points
        if other.latency_ms is not None and other.images_per_s is not None
    ]
    fast, many = (point.top1, -point.latency_ms), (point.top1, point.images_per_s)
    dominating = tuple(
        other.name
        for other, latency, _ in timed
        if other.group == point.group and _dominates(latency, fast)
    )
    return Place(
        on_latency_front=not dominating,
        on_throughput_front=not any(_dominates(throughput, many) for _, _, throughput in timed),
        dominated_by=dominating,
    )


def _dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether `one` is nowhere less and somewhere more than `other`."""
    return one != other and one[0] >= other[0] and one[1] >= other[1]
