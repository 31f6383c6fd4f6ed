"""What a search over calibration images came to, as a sentence or a table."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table
from rich.text import Text

from edgeres.core.recovery import Recovery
from edgeres.core.tuning import Choice, ErrorSource, MixedSearch, Sensitivity
from edgeres.plurals import counted
from edgeres.report.tables import plain_table


def describe_choice(choice: Choice) -> str:
    """Returns what method auto picked for one lowering, and why."""
    methods = ", ".join(f"{method} {quality:.1f}" for method, quality in choice.sqnr_db.items())
    factors = ", ".join(f"{group} x {factor:.2f}" for group, factor in choice.factors.items())
    weights = ", ".join(f"{method} {quality:.1f}" for method, quality in choice.weights_db.items())
    return (
        f"{choice.target}: {choice.method} is best on {counted(choice.images, 'held-out image')} "
        f"(logits' SQNR in dB: {methods}); "
        f"{factors + f' make it {choice.tuned_db:.1f}' if factors else 'no factor improves it'}{'; with weights by ' + weights if weights else ''}"
    )


def describe_recovery(recovery: Recovery) -> str:
    """Returns what a recovery changed and what it did to the logits, as a sentence."""
    equalized = counted(len(recovery.equalization), "activation")
    closer = sum(layer.after < layer.before for layer in recovery.layers)
    logits = ", ".join(
        f"{target} {quality.before_db:.2f} to {quality.after_db:.2f}"
        f"{'' if quality.applied else ' (not applied: no more than chance)'}"
        for target, quality in recovery.lowerings.items()
    )
    return (
        f"recovery by {recovery.kind}, seed {recovery.seed}, fitted on "
        f"{counted(recovery.samples, 'image')}{f', {equalized} equalized' if recovery.equalization else ''}: "
        f"logits' SQNR in dB on {counted(recovery.held_out, 'held-out image')}: {logits}; {closer} "
        f"of {counted(len(recovery.layers), 'layer')} closer to FP32"
    )


def sensitivity_tables(sensitivity: Sensitivity) -> Group:
    """Returns a table of what the error comes from, and one of what each block and layer does."""
    if not sensitivity.sources:
        return Group(_units_table(sensitivity))
    sources = plain_table(
        "rounded",
        numbers=("tensors", "only this"),
        title=f"Logits' SQNR in dB by what is rounded; all of it: {sensitivity.all_db:.1f}",
    )
    for source in sensitivity.sources:
        sources.add_row(source.name, str(source.tensors), source_quality(source))
    return Group(sources, "", _units_table(sensitivity))


def source_quality(source: ErrorSource) -> str:
    """Returns the quality of the logits by one source of error alone."""
    # Pixels that an engine takes as they are have no error, and no ratio.
    return f"{source.alone_db:.1f}" if source.tensors else "exact"


def _units_table(sensitivity: Sensitivity) -> Table:
    """Returns a row for each block and layer, the blocks first, the most harmful first."""
    table = plain_table(
        "unit",
        "kind",
        numbers=("only this", "all but this", "gain"),
        title=f"Logits' SQNR in dB on {counted(sensitivity.images, 'held-out image')}, "
        f"{sensitivity.method}; "
        f"all quantized: {sensitivity.all_db:.1f}",
    )
    # The more the rest gains without a unit, the more the unit harms; `block` sorts before `layer`.
    for unit in sorted(sensitivity.units, key=lambda unit: (unit.kind, -unit.without_db)):
        gain = unit.without_db - sensitivity.all_db
        values = (f"{unit.alone_db:.1f}", f"{unit.without_db:.1f}", f"{gain:+.2f}")
        table.add_row(Text(unit.unit), unit.kind, *values)
    return table


def mixed_table(search: MixedSearch) -> Table:
    """Returns a row for each engine that mixed precision considered; the last one is built."""
    criterion = "drop of accuracy" if search.labelled else "labels that change"
    latency = "latency, ms" if search.measured else "latency, of INT8's (estimated)"
    table = plain_table(
        "kept from INT8",
        numbers=("drop, pp", "logits' SQNR, dB", latency, ""),
        title=f"Within {search.max_drop_pp:g} pp on {counted(search.images, 'image')} "
        f"({criterion}); "
        "* on the Pareto front",
    )
    for index, point in enumerate(search.points):
        # Each point keeps what the one before keeps, and one unit more.
        kept = f"+ {point.kept[-1]}" if point.kept else "nothing"
        values = (f"{point.drop_pp:.2f}", f"{point.sqnr_db:.1f}", f"{point.latency:.2f}")
        table.add_row(Text(kept), *values, "*" if index in search.pareto else "")
    return table
