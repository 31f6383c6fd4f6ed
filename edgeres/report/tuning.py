"""What a search over calibration images found, as a sentence or a table."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from edgeres.core.recovery import Recovery
from edgeres.core.tuning import Choice, MixedSearch, Sensitivity


def describe_choice(choice: Choice) -> str:
    """Returns what method auto picked for one lowering, and why."""
    found = ", ".join(f"{method} {quality:.1f}" for method, quality in choice.sqnr_db.items())
    factors = ", ".join(f"{group} x {factor:.2f}" for group, factor in choice.factors.items())
    weights = ", ".join(f"{method} {quality:.1f}" for method, quality in choice.weights_db.items())
    return (
        f"{choice.target}: {choice.method} is best on {choice.images} held-out images "
        f"(logits' SQNR in dB: {found}); "
        f"{factors + f' make it {choice.tuned_db:.1f}' if factors else 'no factor improves it'}"
        f"{'; with weights by ' + weights if weights else ''}"
    )


def describe_recovery(found: Recovery) -> str:
    """Returns what a recovery changed and what it did to the logits, as a sentence."""
    equalized = f", {len(found.equalization)} activations equalized" if found.equalization else ""
    better = [layer for layer in found.layers if layer.after < layer.before]
    logits = ", ".join(
        f"{target} {of.before_db:.2f} to {of.after_db:.2f}"
        for target, of in found.lowerings.items()
    )
    return (
        f"recovery by {found.kind}, seed {found.seed}, fitted on {found.samples} images{equalized}: "
        f"logits' SQNR in dB on {found.held_out} held-out images: {logits}; "
        f"{len(better)} of {len(found.layers)} layers closer to FP32"
    )


def sensitivity_table(found: Sensitivity) -> Table:
    """Returns a row for each block and layer, the blocks first, the most harmful first."""
    table = Table(
        title=f"Logits' SQNR in dB on {found.images} held-out images, {found.method}; "
        f"all quantized: {found.all_db:.1f}",
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("unit", overflow="fold")
    table.add_column("kind")
    for header in ("only this", "all but this", "gain"):
        table.add_column(header, justify="right")
    for unit in sorted(found.units, key=lambda unit: (unit.kind, -unit.without_db)):
        gain = unit.without_db - found.all_db
        values = (f"{unit.alone_db:.1f}", f"{unit.without_db:.1f}", f"{gain:+.2f}")
        table.add_row(Text(unit.unit), unit.kind, *values)
    return table


def mixed_table(found: MixedSearch) -> Table:
    """Returns a row for each engine that mixed precision considered; the last one is built."""
    judged = "drop of accuracy" if found.labelled else "labels that change"
    table = Table(
        title=f"Within {found.max_drop_pp:g} pp on {found.images} images ({judged}); "
        "* on the Pareto front",
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    table.add_column("kept from INT8", overflow="fold")
    latency = "latency, ms" if found.measured else "latency, of INT8's (estimated)"
    for header in ("drop, pp", "logits' SQNR, dB", latency, ""):
        table.add_column(header, justify="right")
    for index, point in enumerate(found.points):
        kept = f"+ {point.kept[-1]}" if point.kept else "nothing"
        values = (f"{point.drop_pp:.2f}", f"{point.sqnr_db:.1f}", f"{point.latency:.2f}")
        table.add_row(Text(kept), *values, "*" if index in found.pareto else "")
    return table
