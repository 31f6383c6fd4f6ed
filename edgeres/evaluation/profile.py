"""Kernels of engine and reference to residual blocks side by side, and why one is no faster.

Knows names and times alone, and no runtime. A reformat, which computes nothing, counts to the
block whose kernel comes next: it is there for that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgeres.core.blocks import locate
from edgeres.core.precision import Precision
from edgeres.core.verdict import KernelTime, ProfileRow
from edgeres.plurals import counted

HARDLY = 1.1
"""Ratio of the times below which a reason is looked for."""

_REFORMAT_SHARE = 0.25
"""Fraction of a block's time from which its reformats are named."""

_FLOOR_MS = 0.005
"""A kernel this short costs its start: about what a launch takes on a GPU, or a hand-over to
threads on a CPU."""

_Place = tuple[str, str]
"""Block and layer."""


def profile_rows(
    engine: Sequence[KernelTime], reference: Sequence[KernelTime]
) -> tuple[ProfileRow, ...]:
    """Returns each block with its layers behind it, in the reference's order.

    Args:
        engine: its kernels in the order of execution.
        reference: those of the network that it is compared with.
    """
    own, others = _by_place(engine), _by_place(reference)
    places = dict.fromkeys((*others, *own))
    rows = []
    for block in dict.fromkeys(block for block, _ in places):
        layers = [layer for of, layer in places if of == block]
        rows.append(_row(block, None, *(_of_block(each, block) for each in (own, others))))
        # A block of one layer is that layer.
        if layers != [block]:
            rows += [
                _row(block, layer, own.get((block, layer), ()), others.get((block, layer), ()))
                for layer in layers
            ]
    return tuple(rows)


def _by_place(kernels: Iterable[KernelTime]) -> Mapping[_Place, Sequence[KernelTime]]:
    places: dict[_Place, list[KernelTime]] = {}
    waiting: list[KernelTime] = []
    place: _Place = ("network", "network")
    for kernel in kernels:
        if kernel.is_reformat:
            waiting.append(kernel)
            continue
        where = locate(kernel.name, kernel.operator)
        block = where.block or where.module.partition(".")[0] or kernel.name or kernel.kind
        place = block, where.layer if where.block else block
        places.setdefault(place, []).extend((*waiting, kernel))
        waiting = []
    # What follows the last kernel brings its result out.
    if waiting:
        places.setdefault(place, []).extend(waiting)
    return places


def _of_block(places: Mapping[_Place, Sequence[KernelTime]], block: str) -> Sequence[KernelTime]:
    return [kernel for (of, _), kernels in places.items() if of == block for kernel in kernels]


def _row(
    block: str, layer: str | None, engine: Sequence[KernelTime], reference: Sequence[KernelTime]
) -> ProfileRow:
    engine_ms, reference_ms = (sum(kernel.ms for kernel in each) for each in (engine, reference))
    is_faster = engine_ms > 0 and reference_ms / engine_ms >= HARDLY
    return ProfileRow(
        block=block,
        layer=layer,
        engine_ms=engine_ms,
        reference_ms=reference_ms,
        why="" if is_faster else _why(engine, reference, engine_ms),
    )


def _why(engine: Sequence[KernelTime], reference: Sequence[KernelTime], engine_ms: float) -> str:
    if not engine:
        return "computed together with another layer"
    if not reference:
        return "in the reference a part of another layer"
    reasons = []
    floats = [kernel for kernel in engine if kernel.precision is Precision.FP32]
    if floats:
        kinds = ", ".join(dict.fromkeys(kernel.kind for kernel in floats))
        reasons.append(f"{len(floats)} in float ({kinds})")
    reformats = [kernel for kernel in engine if kernel.is_reformat]
    spent = sum(kernel.ms for kernel in reformats)
    if reformats and spent >= _REFORMAT_SHARE * engine_ms:
        reasons.append(f"{counted(len(reformats), 'reformat')}, {spent:.3f} of {engine_ms:.3f} ms")
    if engine_ms / len(engine) < _FLOOR_MS:
        reasons.append(
            f"{counted(len(engine), 'kernel')} of {1000 * engine_ms / len(engine):.1f} us: "
            "starting them is most of it"
        )
    return "; ".join(reasons)
